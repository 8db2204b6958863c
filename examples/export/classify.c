// Which digits are on 28 x 28 images of float32 in a file, by a LeNet that Python has trained and exported:
//   infer.export("lenet", N=64)
// Beside the folder lenet, with the options that lenet/program.h names:
//   cc -std=gnu11 -O2 -march=native -fopenmp-simd -fwrapv classify.c lenet/*.c -I. -lm -pthread -o classify
//   ./classify lenet/weights.safetensors < images
#include <stdio.h>

#include "lenet/program.h"

static float images[LENET_N][28 * 28], logits[LENET_N][10];

int main(int argc, char **argv) {
  lenet_program *net;
  const char *wrong = argc == 2 ? lenet_create(&net, argv[1], 0) : "usage: classify WEIGHTS < IMAGES";
  lenet_arrays arrays = {.image = images[0], .logits = logits[0]};
  while (!wrong && (arrays.N = (int64_t)fread(images, sizeof images[0], LENET_N, stdin)) > 0) {
    wrong = lenet_run(net, &arrays);
    for (int64_t n = 0; !wrong && n < arrays.N; n++) {
      int best = 0;
      for (int digit = 1; digit < 10; digit++) best = logits[n][digit] > logits[n][best] ? digit : best;
      printf("%d %.9g\n", best, logits[n][best]);
    }
  }
  if (!wrong) lenet_free(net);
  else fprintf(stderr, "classify: %s\n", wrong);
  return wrong != 0;
}
