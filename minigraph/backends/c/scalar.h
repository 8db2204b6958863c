// The functions of core/scalar.py for each C type, where C's operators do not say what NumPy means.
//
// Functions of float do not branch, so that compilers vectorize the loops around them: what is conditional is computed
// on both sides and selected, and NaN falls through comparisons to the side that keeps it. (Without instructions for
// floor and gathered loads, pow, sin, cos and tan stay scalar.) "2.5 ulp": the result is within 2.5 units in its last
// place of the exact one. Measured over all floats (those above 0 where f(-x) is f(x) or -f(x); 2^30 random pairs for
// pow) with x * y + z rounded once, and over one in seven with it rounded twice. Subnormal numbers, infinities, signed
// zeros and NaN are as in C's library.
// On a Zen 5 core with AVX512 a number takes 0.13 to 0.3 ns, softplus 0.5, sin, cos, tan and pow 1 to 1.5; with AVX2
// about twice that.
//
// The polynomials are minimax ones: coefficients by Remez' exchange algorithm in 160 bits, for the relative error of
// the function, then rounded to the type. Their arguments and errors are named beside them.
//
// Functions of double are the C library's.
#pragma once

// ---- bits

INLINE uint32_t bits_of_float(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

INLINE float float_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

INLINE uint64_t bits_of_double(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

INLINE double double_of_bits(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// 2^n, for -126 <= n <= 127.
INLINE float two_to(int32_t n) { return float_of_bits((uint32_t)(n + 127) << 23); }

// ---- choosing, and whole numbers

// Both sides are computed: a branch around a long expression keeps loops from being vectorized.
// Whole numbers wrap around. As in NumPy a remainder of division by 0 is 0; a power with y < 0, an error there, is 1.
#define SCALAR_ALL(T) \
  INLINE T where_##T(bool condition, T x, T y) { return condition ? x : y; }
#define SCALAR_WHOLE(T) \
  SCALAR_ALL(T) \
  INLINE T max_##T(T x, T y) { return x > y ? x : y; } \
  INLINE T min_##T(T x, T y) { return x < y ? x : y; } \
  INLINE T pow_##T(T x, T y) { \
    uint64_t base = (uint64_t)x, power = 1; \
    for (; y > 0; y = (T)(y >> 1)) { \
      if (y & 1) power *= base; \
      base *= base; \
    } \
    return (T)power; \
  }
#define SCALAR_SIGNED(T) \
  SCALAR_WHOLE(T) \
  INLINE T abs_##T(T x) { return (T)(x < 0 ? -x : x); } \
  INLINE T sign_##T(T x) { return (T)((x > 0) - (x < 0)); } \
  INLINE T fmod_##T(T x, T y) { return (T)(y == 0 || y == -1 ? 0 : x % y); } \
  INLINE T mod_##T(T x, T y) { \
    const T rest = fmod_##T(x, y); \
    return (T)(rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest); \
  }
#define SCALAR_UNSIGNED(T) \
  SCALAR_WHOLE(T) \
  INLINE T abs_##T(T x) { return x; } \
  INLINE T sign_##T(T x) { return (T)(x != 0); } \
  INLINE T fmod_##T(T x, T y) { return (T)(y == 0 ? 0 : x % y); } \
  INLINE T mod_##T(T x, T y) { return fmod_##T(x, y); }

SCALAR_ALL(bool)
SCALAR_ALL(float)
SCALAR_ALL(double)
SCALAR_SIGNED(int8_t)
SCALAR_SIGNED(int16_t)
SCALAR_SIGNED(int32_t)
SCALAR_SIGNED(int64_t)
SCALAR_UNSIGNED(uint8_t)
SCALAR_UNSIGNED(uint16_t)
SCALAR_UNSIGNED(uint32_t)
SCALAR_UNSIGNED(uint64_t)

#undef SCALAR_ALL
#undef SCALAR_WHOLE
#undef SCALAR_SIGNED
#undef SCALAR_UNSIGNED

// ---- narrow floats

#ifndef __cplusplus  // there bfloat16 is a class
INLINE float float_of_bfloat16(bfloat16 x) { return float_of_bits((uint32_t)x.bits << 16); }

// The nearest, ties to even: half of the last place is added, less a bit where the place is even. NaN stays NaN.
INLINE bfloat16 bfloat16_of(float x) {
  const uint32_t bits = bits_of_float(x), near = bits + 0x7fff + (bits >> 16 & 1);
  const bfloat16 y = {(uint16_t)((x == x ? near : bits | 0x400000) >> 16)};
  return y;
}
#endif

// ---- floats to whole numbers

// The fraction is cut off. C leaves open what is out of range and NaN; NumPy gives what the machine gives: on x86 the
// least number. Types smaller than int32_t take the low bits of int32_t, uint32_t those of int64_t. (Out of int32_t,
// NumPy's own uint32 depends on the length of the array.)
#define SCALAR_CUT(F) \
  INLINE int32_t int32_t_of_##F(F x) { \
    const bool fits = x >= (F)-0x1p31 && x < (F)0x1p31; \
    return (int32_t)(fits ? x : (F)-0x1p31); \
  } \
  INLINE int64_t int64_t_of_##F(F x) { \
    const bool fits = x >= (F)-0x1p63 && x < (F)0x1p63; \
    return (int64_t)(fits ? x : (F)-0x1p63); \
  } \
  INLINE uint64_t uint64_t_of_##F(F x) { \
    const bool upper = x >= (F)0x1p63; \
    const uint64_t low = (uint64_t)int64_t_of_##F(upper ? x - (F)0x1p63 : x); \
    return upper ? low ^ ((uint64_t)1 << 63) : low; \
  } \
  INLINE int8_t int8_t_of_##F(F x) { return (int8_t)int32_t_of_##F(x); } \
  INLINE int16_t int16_t_of_##F(F x) { return (int16_t)int32_t_of_##F(x); } \
  INLINE uint8_t uint8_t_of_##F(F x) { return (uint8_t)int32_t_of_##F(x); } \
  INLINE uint16_t uint16_t_of_##F(F x) { return (uint16_t)int32_t_of_##F(x); } \
  INLINE uint32_t uint32_t_of_##F(F x) { return (uint32_t)int64_t_of_##F(x); }

SCALAR_CUT(float)
SCALAR_CUT(double)

#undef SCALAR_CUT

// A float that rounds to the same half as x does: cut off, with its last bit set where anything was lost. Rounded to
// the nearest float, x could come to lie in the middle of two halves.
INLINE float float_for_half(double x) {
  const uint64_t bits = bits_of_double(x), lost = 0x1fffffff;
  return (float)double_of_bits((bits & ~lost) | ((bits & lost) ? lost + 1 : 0));
}

// ---- floats: what is exact

INLINE float max_float(float x, float y) {
  const float larger = y > x ? y : x;  // x where either is NaN
  return y != y ? y : larger;
}

INLINE double max_double(double x, double y) {
  const double larger = y > x ? y : x;
  return y != y ? y : larger;
}

INLINE float min_float(float x, float y) {
  const float smaller = y < x ? y : x;
  return y != y ? y : smaller;
}

INLINE double min_double(double x, double y) {
  const double smaller = y < x ? y : x;
  return y != y ? y : smaller;
}

INLINE float sign_float(float x) {
  const float up = x > 0 ? 1.0f : x, down = x < 0 ? -1.0f : up;
  return x == 0 ? 0.0f : down;
}

INLINE double sign_double(double x) {
  const double up = x > 0 ? 1.0 : x, down = x < 0 ? -1.0 : up;
  return x == 0 ? 0.0 : down;
}

// Rounded to 10 bits behind the point, away from 0 in the middle: what is cut off carries where it is half and more.
INLINE float tf32_float(float x) {
  return x != x ? x : float_of_bits((bits_of_float(x) + 0x1000) & 0xffffe000);
}

INLINE bool isnan_float(float x) { return x != x; }
INLINE bool isnan_double(double x) { return x != x; }
INLINE bool isinf_float(float x) { return fabsf(x) == INFINITY; }
INLINE bool isinf_double(double x) { return fabs(x) == (double)INFINITY; }

INLINE float abs_float(float x) { return fabsf(x); }
INLINE double abs_double(double x) { return fabs(x); }
INLINE float floor_float(float x) { return floorf(x); }
INLINE double floor_double(double x) { return floor(x); }
INLINE float ceil_float(float x) { return ceilf(x); }
INLINE double ceil_double(double x) { return ceil(x); }
INLINE float trunc_float(float x) { return truncf(x); }
INLINE double trunc_double(double x) { return trunc(x); }
INLINE float round_float(float x) { return rintf(x); }  // half to even
INLINE double round_double(double x) { return rint(x); }
INLINE float sqrt_float(float x) { return sqrtf(x); }
INLINE double sqrt_double(double x) { return sqrt(x); }
INLINE float rsqrt_float(float x) { return 1.0f / sqrtf(x); }  // 1.5 ulp
INLINE double rsqrt_double(double x) { return 1.0 / sqrt(x); }

// Remainders with the sign of x, and (mod) with that of y. The C library's: loops around these are not vectorized.
INLINE float fmod_float(float x, float y) { return fmodf(x, y); }
INLINE double fmod_double(double x, double y) { return fmod(x, y); }

INLINE float mod_float(float x, float y) {
  const float rest = fmodf(x, y);
  if (rest == 0) return copysignf(0.0f, y);
  return (rest < 0) != (y < 0) ? rest + y : rest;
}

INLINE double mod_double(double x, double y) {
  const double rest = fmod(x, y);
  if (rest == 0) return copysign(0.0, y);
  return (rest < 0) != (y < 0) ? rest + y : rest;
}

// ---- exponentials
//
// x = n log(2) + r with |r| <= log(2) / 2, and e^r = 1 + r + r^2 Q(r).
// LOG2_HIGH has 15 bits, so that n * LOG2_HIGH is exact; LOG2_LOW is the rest of log(2).

#define LOG2_HIGH 0x1.62e4p-1f
#define LOG2_LOW 0x1.7f7d1cp-20f

typedef struct {
  int32_t n;
  float rest;  // e^r - 1
} exp_parts;

// |x| < 2^22 log(2). Adding 1.5 * 2^23 rounds to a whole number, which then is in the low bits of the sum.
INLINE exp_parts split_exp(float x) {
  const float shift = 0x1.8p23f, shifted = x * 0x1.715476p0f + shift, whole = shifted - shift;
  const float r = (x - whole * LOG2_HIGH) - whole * LOG2_LOW;
  float q = 0x1.6a1a72p-10f;  // relative error of e^r 2^-28.2
  q = q * r + 0x1.123fc6p-7f;
  q = q * r + 0x1.555916p-5f;
  q = q * r + 0x1.55548ap-3f;
  q = q * r + 0x1.fffffcp-2f;
  exp_parts parts;
  parts.n = (int32_t)(bits_of_float(shifted) - bits_of_float(shift));
  parts.rest = r + r * r * q;
  return parts;
}

// (e^x - 1) / 2^k, where -126 <= n - k <= 127. Exact where x and k are 0, and so of full accuracy around it.
INLINE float expm1_over(float x, int32_t k) {
  const exp_parts e = split_exp(x);
  const float scale = two_to(e.n - k);
  return scale * e.rest + (scale - two_to(-k));
}

INLINE float exp_float(float x) {  // 1.01 ulp
  const float above = x < -104.0f ? -104.0f : x, inside = above > 89.0f ? 89.0f : above;
  const exp_parts e = split_exp(inside);
  const int32_t half_n = e.n >> 1;  // in two steps: 2^n alone may not be a float
  return (1.0f + e.rest) * two_to(half_n) * two_to(e.n - half_n);
}

INLINE float expm1_float(float x) {  // 1.6 ulp
  const float above = x < -18.0f ? -18.0f : x, inside = above > 89.0f ? 89.0f : above;
  return fabsf(x) < 0x1p-25f ? x : 2.0f * expm1_over(inside, 1);
}

// t / (t + 2) with t = e^2x - 1, for x < 0: the other side is its mirror image.
INLINE float tanh_float(float x) {  // 2.5 ulp
  const float size = fabsf(x), inside = size > 10.0f ? 10.0f : size;
  const float t = expm1_over(-2.0f * inside, 0);
  return copysignf(t / (t + 2.0f), x);
}

// With q = (e^|x| - 1) / 4, which is finite where the result is: sinh |x| = 2 (q + q / (4q + 1)).
INLINE float sinh_float(float x) {  // 2.4 ulp
  const float size = fabsf(x), inside = size > 89.5f ? 89.5f : size;
  const float q = expm1_over(inside, 2);
  return size < 0x1p-12f ? x : copysignf(2.0f * (q + q / (4.0f * q + 1.0f)), x);
}

// With q = e^|x| / 4: cosh x = 2q + 1 / 8q.
INLINE float cosh_float(float x) {  // 1.5 ulp
  const float size = fabsf(x), inside = size > 89.5f ? 89.5f : size;
  const exp_parts e = split_exp(inside);
  const float q = two_to(e.n - 2) + two_to(e.n - 2) * e.rest;
  return 2.0f * q + 0.125f / q;
}

INLINE float sigmoid_float(float x) {  // 2.41 ulp
  const float e = exp_float(-fabsf(x));
  return (x >= 0 ? 1.0f : e) / (1.0f + e);
}

INLINE double exp_double(double x) { return exp(x); }
INLINE double expm1_double(double x) { return expm1(x); }
INLINE double tanh_double(double x) { return tanh(x); }
INLINE double sinh_double(double x) { return sinh(x); }
INLINE double cosh_double(double x) { return cosh(x); }

INLINE double sigmoid_double(double x) {
  const double e = exp(-fabs(x));
  return (x >= 0 ? 1.0 : e) / (1.0 + e);
}

// ---- logarithms

// k log(2) + log(1 + f), for sqrt(1/2) <= 1 + f <= sqrt(2): log(1 + f) = f - f^2 / 2 + f^3 P(f).
INLINE float log_sum(float k, float f) {
  float p = 0x1.1457dap-4f;  // relative error 2^-30.3
  p = p * f - 0x1.de3c5p-4f;
  p = p * f + 0x1.e6f074p-4f;
  p = p * f - 0x1.fc21fep-4f;
  p = p * f + 0x1.233768p-3f;
  p = p * f - 0x1.555c4ep-3f;
  p = p * f + 0x1.99a4b6p-3f;
  p = p * f - 0x1.000006p-2f;
  p = p * f + 0x1.555548p-2f;
  const float square = f * f;
  return k * LOG2_HIGH + (f + (k * LOG2_LOW + (square * f * p - 0.5f * square)));
}

// The whole k for which x / 2^k is in [sqrt(1/2), sqrt(2)), for normal x > 0.
INLINE int32_t exponent_of(float x) { return (int32_t)(bits_of_float(x) - 0x3f3504f3) >> 23; }

INLINE float log_float(float x) {  // 0.86 ulp
  const bool tiny = x < 0x1p-126f;
  const float normal = tiny ? x * 0x1p23f : x;
  const int32_t k = exponent_of(normal);
  const float m = float_of_bits(bits_of_float(normal) - ((uint32_t)k << 23));
  const float y = log_sum((float)(tiny ? k - 23 : k), m - 1.0f), pole = x == 0 ? -INFINITY : NAN;
  const float right = x > 0 ? y : pole;
  return x < INFINITY ? right : x;
}

INLINE float log1p_float(float x) {  // 1.5 ulp
  const int32_t k = exponent_of(1.0f + x), half_k = k >> 1;
  const float first = two_to(-half_k), second = two_to(half_k - k);  // 2^-k is first * second
  const float f = x * first * second + (first * second - 1.0f);      // (1 + x) / 2^k - 1, without rounding 1 + x
  const float y = copysignf(log_sum((float)k, f), x), pole = x == -1.0f ? -INFINITY : NAN;
  const float right = x > -1.0f ? y : pole;
  return x < INFINITY ? right : x;
}

// max(x, 0) + log(1 + e), with e = e^-|x| in [0, 1].
INLINE float softplus_float(float x) {  // 1.71 ulp
  const float e = exp_float(-fabsf(x));
  const bool halve = e > 0x1.a82798p-2f;  // sqrt(2) - 1
  const float logarithm = log_sum(halve ? 1.0f : 0.0f, halve ? 0.5f * (e - 1.0f) : e);
  return (x > 0 ? x : 0.0f) + logarithm;
}

INLINE double log_double(double x) { return log(x); }
INLINE double log1p_double(double x) { return log1p(x); }
INLINE double softplus_double(double x) { return max_double(x, 0.0) + log1p(exp(-fabs(x))); }

// ---- powers
//
// |x|^y = 2^(y log2 |x|), in double: log2(m) = s P(s^2) with s = (m - 1) / (m + 1), relative error 2^-45; 2^r for
// |r| <= 1/2, relative error 2^-34.5.

// log2 of x >= 0: -INFINITY and INFINITY at the ends, NaN stays.
INLINE double log2_of(float x) {
  const bool tiny = x < 0x1p-126f;
  const float normal = tiny ? x * 0x1p23f : x;
  const int32_t k = exponent_of(normal);
  const double m = float_of_bits(bits_of_float(normal) - ((uint32_t)k << 23));
  const double s = (m - 1.0) / (m + 1.0), t = s * s;
  double p = 0x1.21b0597dd70bcp-2;
  p = p * t + 0x1.47955fd25cdfap-2;
  p = p * t + 0x1.a61a2e915632fp-2;
  p = p * t + 0x1.2776c293812f6p-1;
  p = p * t + 0x1.ec709dc53c311p-1;
  p = p * t + 0x1.71547652b8251p1;
  const double y = (double)(tiny ? k - 23 : k) + s * p, right = x > 0 ? y : -(double)INFINITY;
  return x < INFINITY ? right : (double)x;
}

// 2^x, 0 and INFINITY at the ends, NaN stays.
INLINE double exp2_of(double x) {
  const double above = x < -200.0 ? -200.0 : x, inside = above > 200.0 ? 200.0 : above;
  const double shift = 0x1.8p52, shifted = inside + shift, r = inside - (shifted - shift);
  double p = 0x1.fe1759099eac6p-17;
  p = p * r + 0x1.446a43e9d91ccp-13;
  p = p * r + 0x1.5d8a7107549c2p-10;
  p = p * r + 0x1.3b29dc149027ep-7;
  p = p * r + 0x1.c6b08aae583c0p-5;
  p = p * r + 0x1.ebfbe0a4f1df7p-3;
  p = p * r + 0x1.62e42ff116bc5p-1;
  p = p * r + 0x1.ffffffffab9c9p-1;
  return p * double_of_bits((bits_of_double(shifted) + 1023) << 52);
}

INLINE float pow_float(float x, float y) {  // 0.501 ulp
  const float size = fabsf(x);
  const bool whole = floorf(y) == y, odd = whole && floorf(0.5f * y) != 0.5f * y;
  const double logarithm = log2_of(size);
  const float power = (float)exp2_of(size == 1.0f ? 0.0 : (double)y * logarithm);
  const float signed_power = odd ? copysignf(power, x) : power;
  const bool no_number = x < 0 && !whole && size < INFINITY;
  const float found = no_number ? NAN : signed_power;
  return y == 0 || x == 1.0f ? 1.0f : found;  // also of NaN
}

INLINE double pow_double(double x, double y) { return pow(x, y); }

INLINE float square_float(float x) { return x * x; }
INLINE double square_double(double x) { return x * x; }
INLINE float cube_float(float x) { return x * x * x; }  // 1 ulp
INLINE double cube_double(double x) { return x * x * x; }

// ---- sines
//
// x = (n + f) pi / 2 with |f| <= 1/2. x is m 2^j with a whole m < 2^24 (where x < 2^24, j is 0 and m is x), and whole
// multiples of 4 do not matter for n: a table holds 2^j 2 / pi modulo 4 in two parts, the first of 28 bits. m times
// that is exact in double, and m times both is off by at most 2^-55, where f is at least 2^-31 for any float but 0.
// So every float is reduced, at the price of two loads from the table.

#ifndef TABLE  // where it lies, another prelude may say
#define TABLE static const
#endif
TABLE double TWO_OVER_PI_FIRST[105] = {
    0x1.45f3068p-1, 0x1.45f306cp0, 0x1.45f306cp1, 0x1.17cc1b4p0, 0x1.17cc1b6p1, 0x1.7cc1b7p-2, 0x1.7cc1b7p-1,
    0x1.7cc1b7p0, 0x1.7cc1b72p1, 0x1.f306dc8p0, 0x1.f306dc8p1, 0x1.e60db92p1, 0x1.cc1b726p1, 0x1.9836e4ep1,
    0x1.306dc9cp1, 0x1.836e4ep-1, 0x1.836e4e4p0, 0x1.836e4e4p1, 0x1.06dc9c8p1, 0x1.b7272p-4, 0x1.b72722p-3,
    0x1.b72722p-2, 0x1.b72722p-1, 0x1.b72722p0, 0x1.b72722p1, 0x1.6e4e44p1, 0x1.b939104p0, 0x1.b939104p1,
    0x1.727220ap1, 0x1.c9c8828p0, 0x1.c9c882ap1, 0x1.9391054p1, 0x1.27220a8p1, 0x1.3910548p-1, 0x1.3910548p0,
    0x1.391054ap1, 0x1.c882a5p-1, 0x1.c882a5p0, 0x1.c882a52p1, 0x1.91054a6p1, 0x1.220a94ep1, 0x1.1054a78p-1,
    0x1.1054a7cp0, 0x1.1054a7ep1, 0x1.054a7fp-2, 0x1.054a7fp-1, 0x1.054a7fp0, 0x1.054a7fp1, 0x1.529fcp-4,
    0x1.529fc2p-3, 0x1.529fc2p-2, 0x1.529fc2p-1, 0x1.529fc24p0, 0x1.529fc26p1, 0x1.4a7f09cp0, 0x1.4a7f09cp1,
    0x1.29fc274p0, 0x1.29fc274p1, 0x1.4fe13a8p-1, 0x1.4fe13a8p0, 0x1.4fe13aap1, 0x1.3f84eacp0, 0x1.3f84eaep1,
    0x1.fc27578p-1, 0x1.fc2757cp0, 0x1.fc2757cp1, 0x1.f84eafap1, 0x1.f09d5f4p1, 0x1.e13abe8p1, 0x1.c2757dp1,
    0x1.84eafa2p1, 0x1.09d5f46p1, 0x1.3abe8ep-3, 0x1.3abe8fp-2, 0x1.3abe8f8p-1, 0x1.3abe8f8p0, 0x1.3abe8fap1,
    0x1.d5f47dp-1, 0x1.d5f47d4p0, 0x1.d5f47d4p1, 0x1.abe8fa8p1, 0x1.57d1f52p1, 0x1.5f47d4cp0, 0x1.5f47d4cp1,
    0x1.7d1f534p0, 0x1.7d1f534p1, 0x1.f47d4dp0, 0x1.f47d4d2p1, 0x1.e8fa9a6p1, 0x1.d1f534cp1, 0x1.a3ea69ap1,
    0x1.47d4d36p1, 0x1.1f534dcp0, 0x1.1f534dcp1, 0x1.f534ddp-2, 0x1.f534dd8p-1, 0x1.f534ddcp0, 0x1.f534ddcp1,
    0x1.ea69bb8p1, 0x1.d4d377p1, 0x1.a9a6eep1, 0x1.534ddcp1, 0x1.4d377p0, 0x1.4d37702p1, 0x1.34ddc0cp0,
};
TABLE double TWO_OVER_PI_REST[105] = {
    0x1.727220a94fe14p-27, 0x1.c9c882a53f84fp-28, 0x1.c9c882a53f84fp-27, 0x1.9391054a7f09dp-27, 0x1.27220a94fe13bp-27,
    0x1.391054a7f09d6p-29, 0x1.391054a7f09d6p-28, 0x1.391054a7f09d6p-27, 0x1.c882a53f84ebp-29, 0x1.c882a53f84ebp-28,
    0x1.c882a53f84ebp-27, 0x1.91054a7f09d5fp-27, 0x1.220a94fe13abfp-27, 0x1.1054a7f09d5f4p-29, 0x1.1054a7f09d5f4p-28,
    0x1.1054a7f09d5f4p-27, 0x1.054a7f09d5f48p-30, 0x1.054a7f09d5f48p-29, 0x1.054a7f09d5f48p-28, 0x1.054a7f09d5f48p-27,
    0x1.529fc2757d1f5p-32, 0x1.529fc2757d1f5p-31, 0x1.529fc2757d1f5p-30, 0x1.529fc2757d1f5p-29, 0x1.529fc2757d1f5p-28,
    0x1.529fc2757d1f5p-27, 0x1.4a7f09d5f47d5p-28, 0x1.4a7f09d5f47d5p-27, 0x1.29fc2757d1f53p-28, 0x1.29fc2757d1f53p-27,
    0x1.4fe13abe8fa9ap-29, 0x1.4fe13abe8fa9ap-28, 0x1.4fe13abe8fa9ap-27, 0x1.3f84eafa3ea6ap-28, 0x1.3f84eafa3ea6ap-27,
    0x1.fc2757d1f534ep-29, 0x1.fc2757d1f534ep-28, 0x1.fc2757d1f534ep-27, 0x1.f84eafa3ea69cp-27, 0x1.f09d5f47d4d37p-27,
    0x1.e13abe8fa9a6fp-27, 0x1.c2757d1f534dep-27, 0x1.84eafa3ea69bcp-27, 0x1.09d5f47d4d377p-27, 0x1.3abe8fa9a6eep-31,
    0x1.3abe8fa9a6eep-30, 0x1.3abe8fa9a6eep-29, 0x1.3abe8fa9a6eep-28, 0x1.3abe8fa9a6eep-27, 0x1.d5f47d4d37703p-29,
    0x1.d5f47d4d37703p-28, 0x1.d5f47d4d37703p-27, 0x1.abe8fa9a6ee07p-27, 0x1.57d1f534ddc0ep-27, 0x1.5f47d4d377037p-28,
    0x1.5f47d4d377037p-27, 0x1.7d1f534ddc0dbp-28, 0x1.7d1f534ddc0dbp-27, 0x1.f47d4d377036ep-28, 0x1.f47d4d377036ep-27,
    0x1.e8fa9a6ee06dbp-27, 0x1.d1f534ddc0db6p-27, 0x1.a3ea69bb81b6cp-27, 0x1.47d4d377036d9p-27, 0x1.1f534ddc0db63p-28,
    0x1.1f534ddc0db63p-27, 0x1.f534ddc0db629p-30, 0x1.f534ddc0db629p-29, 0x1.f534ddc0db629p-28, 0x1.f534ddc0db629p-27,
    0x1.ea69bb81b6c53p-27, 0x1.d4d377036d8a5p-27, 0x1.a9a6ee06db14bp-27, 0x1.534ddc0db6296p-27, 0x1.4d377036d8a56p-28,
    0x1.4d377036d8a56p-27, 0x1.34ddc0db6295ap-28, 0x1.34ddc0db6295ap-27, 0x1.a6ee06db14acdp-29, 0x1.a6ee06db14acdp-28,
    0x1.a6ee06db14acdp-27, 0x1.4ddc0db629599p-27, 0x1.377036d8a5665p-28, 0x1.377036d8a5665p-27, 0x1.bb81b6c52b328p-29,
    0x1.bb81b6c52b328p-28, 0x1.bb81b6c52b328p-27, 0x1.77036d8a5664fp-27, 0x1.dc0db6295993cp-28, 0x1.dc0db6295993cp-27,
    0x1.b81b6c52b3279p-27, 0x1.7036d8a5664f1p-27, 0x1.c0db6295993c4p-28, 0x1.c0db6295993c4p-27, 0x1.81b6c52b32788p-27,
    0x1.036d8a5664f11p-27, 0x1.b6c52b3278872p-33, 0x1.b6c52b3278872p-32, 0x1.b6c52b3278872p-31, 0x1.b6c52b3278872p-30,
    0x1.b6c52b3278872p-29, 0x1.b6c52b3278872p-28, 0x1.b6c52b3278872p-27, 0x1.6d8a5664f10e4p-27, 0x1.b6295993c439p-28,
};

typedef struct {
  uint64_t n;  // modulo 4 in the last two bits
  double f;
} turn;

INLINE turn quarter_turns(float x) {
  const int32_t exponent = (int32_t)(bits_of_float(x) >> 23 & 255) - 150;
  const int32_t positive = exponent < 0 ? 0 : exponent, power = positive > 104 ? 104 : positive;  // beyond: no number
  const idx j = power;
  const double m = (double)(x * two_to(-power)), first = m * TWO_OVER_PI_FIRST[j], second = m * TWO_OVER_PI_REST[j];
  const double shift = 0x1.8p52, shifted = first + second + shift;
  turn result;
  result.n = bits_of_double(shifted);
  result.f = (first - (shifted - shift)) + second;
  return result;
}

// sin and cos of f pi / 2: relative errors 2^-37 and 2^-34.
INLINE double sin_quarter(double f) {
  const double t = f * f;
  double p = 0x1.4bc1da2047f42p-13;
  p = p * t - 0x1.32ca8399d6ee4p-8;
  p = p * t + 0x1.466bba884f32cp-4;
  p = p * t - 0x1.4abbce5647e13p-1;
  p = p * t + 0x1.921fb5443af1ep0;
  return f * p;
}

INLINE double cos_quarter(double f) {
  const double t = f * f;
  double p = 0x1.d99e76858ea71p-11;
  p = p * t - 0x1.55c4e6a9c55a6p-6;
  p = p * t + 0x1.03c1daa62947ep-2;
  p = p * t - 0x1.3bd3cc6e69e0ep0;
  p = p * t + 0x1.ffffffff84766p-1;
  return p;
}

// The sine of (n + f) pi / 2: of f, of f + 1, or one of these with the other sign.
INLINE float sin_of_turn(uint64_t n, double f) {
  const double sine = sin_quarter(f), cosine = cos_quarter(f), size = n & 1 ? cosine : sine;
  return (float)(n & 2 ? -size : size);
}

INLINE float sin_float(float x) {  // 0.501 ulp
  const turn t = quarter_turns(x);
  return sin_of_turn(t.n, t.f);
}

INLINE float cos_float(float x) {  // 0.501 ulp
  const turn t = quarter_turns(x);
  return sin_of_turn(t.n + 1, t.f);
}

INLINE float tan_float(float x) {  // 0.501 ulp
  const turn t = quarter_turns(x);
  const double sine = sin_quarter(t.f), cosine = cos_quarter(t.f);
  return (float)(t.n & 1 ? -cosine / sine : sine / cosine);
}

INLINE double sin_double(double x) { return sin(x); }
INLINE double cos_double(double x) { return cos(x); }
INLINE double tan_double(double x) { return tan(x); }

// ---- angles

#define HALF_PI_HIGH 0x1.921fb6p0f
#define HALF_PI_LOW -0x1.777a5cp-25f

// asin s, for 0 <= s <= 1/2 and z = s^2: s + s z P(z), relative error 2^-31.8.
INLINE float asin_small(float s, float z) {
  float p = 0x1.3355c6p-5f;
  p = p * z + 0x1.d91f98p-7f;
  p = p * z + 0x1.0491a2p-5f;
  p = p * z + 0x1.6caed2p-5f;
  p = p * z + 0x1.33387cp-4f;
  p = p * z + 0x1.55554cp-3f;
  return s + s * z * p;
}

// Above 1/2: asin x = pi / 2 - 2 asin sqrt((1 - x) / 2). Above 1 the root is NaN.
INLINE float asin_float(float x) {  // 2.4 ulp
  const float size = fabsf(x);
  const bool large = size > 0.5f;
  const float z = large ? 0.5f * (1.0f - size) : size * size, s = large ? sqrtf(z) : size;
  const float y = asin_small(s, z);
  return copysignf(large ? HALF_PI_HIGH - (2.0f * y - HALF_PI_LOW) : y, x);
}

INLINE float acos_float(float x) {  // 1.2 ulp
  const float size = fabsf(x);
  const bool large = size > 0.5f;
  const float z = large ? 0.5f * (1.0f - size) : size * size, s = large ? sqrtf(z) : x;
  const float y = asin_small(s, z);
  const float left = 2.0f * HALF_PI_HIGH - (2.0f * y - 2.0f * HALF_PI_LOW), right = 2.0f * y;
  const float middle = HALF_PI_HIGH - (y - HALF_PI_LOW), outside = x < 0 ? left : right;
  return large ? outside : middle;
}

// t + t^3 P(t^2) for t in [0, 1], relative error 2^-31.2. Above 1: atan x = pi / 2 - atan 1/x.
INLINE float atan_float(float x) {  // 1.6 ulp
  const float size = fabsf(x);
  const bool large = size > 1.0f;
  const float t = large ? 1.0f / size : size, z = t * t;
  float p = 0x1.23f97ep-10f;
  p = p * z - 0x1.df977p-8f;
  p = p * z + 0x1.714b52p-6f;
  p = p * z - 0x1.6e19c2p-5f;
  p = p * z + 0x1.1422d4p-4f;
  p = p * z - 0x1.68e704p-4f;
  p = p * z + 0x1.c4f1e2p-4f;
  p = p * z - 0x1.247374p-3f;
  p = p * z + 0x1.9997ep-3f;
  p = p * z - 0x1.555552p-2f;
  const float y = t + t * z * p;
  return copysignf(large ? HALF_PI_HIGH - (y - HALF_PI_LOW) : y, x);
}

INLINE double asin_double(double x) { return asin(x); }
INLINE double acos_double(double x) { return acos(x); }
INLINE double atan_double(double x) { return atan(x); }

// ---- the error function

// Up to 1: x + x P(x^2), relative error 2^-29.6. Above: 1 - e^-q(x), where q is nearly -log erfc x: relative error of
// erf 2^-35. From 3.95 on it is 1.
INLINE float erf_float(float x) {  // 1.33 ulp
  const float size = fabsf(x), z = x * x;
  float p = 0x1.496a3p-14f;
  p = p * z - 0x1.a3f7p-11f;
  p = p * z + 0x1.5405b2p-8f;
  p = p * z - 0x1.b7f90cp-6f;
  p = p * z + 0x1.ce2cf8p-4f;
  p = p * z - 0x1.81273ep-2f;
  p = p * z + 0x1.06eba8p-3f;
  const float inside = size > 3.95f ? 3.95f : size;
  float q = 0x1.6c068cp-16f;
  q = q * inside - 0x1.ceeaecp-12f;
  q = q * inside + 0x1.1398fap-8f;
  q = q * inside - 0x1.9d0bd6p-6f;
  q = q * inside + 0x1.bc18dp-4f;
  q = q * inside + 0x1.4434fp-1f;
  q = q * inside + 0x1.212c2cp0f;
  q = q * inside - 0x1.8b3f24p-13f;
  const exp_parts e = split_exp(-q);
  const float tail = two_to(e.n) + two_to(e.n) * e.rest;
  return size > 1.0f ? copysignf(1.0f - tail, x) : x + x * p;
}

INLINE double erf_double(double x) { return erf(x); }

#undef LOG2_HIGH
#undef LOG2_LOW
#undef HALF_PI_HIGH
#undef HALF_PI_LOW
