// The weights of an exported program: a safetensors file that is read whole, used where it lies, and written whole.
//
// Such a file begins with a header: 8 bytes of length, and a text that says where each array lies. A program knows
// where its arrays lie, so it does not read the text: it compares its hash with that of the file that it was made with.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct weights {
  int64_t bytes;        // of the file
  int64_t header_bytes; // with the 8 bytes of its length
  uint64_t header_hash; // FNV-1a
};

static inline uint64_t weights_hash(const char *data, int64_t bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (int64_t i = 0; i < bytes; i++) hash = (hash ^ (unsigned char)data[i]) * 0x100000001b3u;
  return hash;
}

// Memory of whole lines of the cache; 0 if there is none.
static inline char *weights_memory(int64_t bytes) { return aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64 + 64); }

// Read a file into memory of its size. Returns 0, or a sentence that says why it cannot be used.
static inline const char *weights_read(const char *path, char *memory, struct weights expected) {
  FILE *file = fopen(path, "rb");
  if (!file) return "the file of the weights cannot be opened";
  const size_t bytes = (size_t)expected.bytes, found = fread(memory, 1, bytes, file);
  const int more = found == bytes && fgetc(file) != EOF;
  fclose(file);
  if (found != bytes || more) return "the file of the weights has another size than those of this program";
  if (weights_hash(memory, expected.header_bytes) != expected.header_hash)
    return "the file holds other arrays than the weights of this program";
  return 0;
}

// Write beside the place, and rename: the file is there whole, or as it was. Returns 0, or a sentence.
static inline const char *weights_write(const char *path, const char *memory, struct weights expected) {
  const size_t length = strlen(path);
  char *beside = malloc(length + sizeof ".partial");
  if (!beside) return "there is not enough memory";
  memcpy(beside, path, length);
  memcpy(beside + length, ".partial", sizeof ".partial");
  FILE *file = fopen(beside, "wb");
  const char *wrong = file ? 0 : "the file of the weights cannot be written";
  if (file) {
    const size_t bytes = (size_t)expected.bytes;
    const int whole = fwrite(memory, 1, bytes, file) == bytes && fflush(file) == 0;
    if (fclose(file) || !whole || rename(beside, path)) {
      remove(beside);
      wrong = "the weights cannot be written whole";
    }
  }
  free(beside);
  return wrong;
}
