/* INT8 kernels in plain C99, bit for bit those of TensorFlow Lite's reference implementation: its fixed-point rounding,
 * its order of clamping, its softmax. One sample at a time, maps as height x width x channels. No dependency.
 */
#ifndef EDGEPACK_KERNELS_H
#define EDGEPACK_KERNELS_H
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define EP_MAYBE_UNUSED __attribute__((unused))
#else
#define EP_MAYBE_UNUSED
#endif
#define EP_FN static EP_MAYBE_UNUSED

/* ---- fixed point -------------------------------------------------------------------------------------------------- */

EP_FN int32_t ep_high_mul(int32_t a, int32_t b)
{
    if (a == b && a == INT32_MIN)
        return INT32_MAX;
    int64_t ab = (int64_t)a * b;
    int32_t nudge = ab >= 0 ? (1 << 30) : (1 - (1 << 30));
    return (int32_t)((ab + nudge) / ((int64_t)1 << 31));
}

EP_FN int32_t ep_divide_pot(int32_t x, int exponent)
{
    int32_t mask = (int32_t)(((int64_t)1 << exponent) - 1);
    int32_t remainder = x & mask;
    int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + (remainder > threshold ? 1 : 0);
}

EP_FN int32_t ep_multiply(int32_t x, int32_t multiplier, int shift)
{
    int left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
    return ep_divide_pot(ep_high_mul((int32_t)((uint32_t)x << left), multiplier), right);
}

EP_FN int8_t ep_clamp(int32_t x, int32_t low, int32_t high)
{
    return (int8_t)(x < low ? low : x > high ? high : x);
}

/* ---- windows ------------------------------------------------------------------------------------------------------ */

typedef struct {
    int in_h, in_w, in_c, out_h, out_w, out_c;
    int kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_h, pad_w;
    int32_t in_zero, out_zero, low, high;
} ep_window;

EP_FN void ep_conv(const ep_window *p, const int8_t *in, const int8_t *weights, const int32_t *bias,
                   const int32_t *multiplier, const int8_t *shift, int8_t *out)
{
    for (int y = 0; y < p->out_h; y++)
        for (int x = 0; x < p->out_w; x++) {
            int top = y * p->stride_h - p->pad_h, left = x * p->stride_w - p->pad_w;
            const int8_t *w = weights;
            for (int o = 0; o < p->out_c; o++) {
                int32_t sum = bias ? bias[o] : 0;
                for (int i = 0; i < p->kernel_h; i++) {
                    int row = top + i * p->dilation_h;
                    if (row < 0 || row >= p->in_h) {
                        w += p->kernel_w * p->in_c;
                        continue;
                    }
                    for (int j = 0; j < p->kernel_w; j++, w += p->in_c) {
                        int column = left + j * p->dilation_w;
                        if (column < 0 || column >= p->in_w)
                            continue;
                        const int8_t *v = in + (row * p->in_w + column) * p->in_c;
                        for (int c = 0; c < p->in_c; c++)
                            sum += (v[c] - p->in_zero) * w[c];
                    }
                }
                *out++ = ep_clamp(ep_multiply(sum, multiplier[o], shift[o]) + p->out_zero, p->low, p->high);
            }
        }
}

EP_FN void ep_depthwise(const ep_window *p, const int8_t *in, const int8_t *weights, const int32_t *bias,
                        const int32_t *multiplier, const int8_t *shift, int8_t *out)
{
    int times = p->out_c / p->in_c;
    for (int y = 0; y < p->out_h; y++)
        for (int x = 0; x < p->out_w; x++) {
            int top = y * p->stride_h - p->pad_h, left = x * p->stride_w - p->pad_w;
            for (int o = 0; o < p->out_c; o++) {
                int32_t sum = bias ? bias[o] : 0;
                for (int i = 0; i < p->kernel_h; i++) {
                    int row = top + i * p->dilation_h;
                    if (row < 0 || row >= p->in_h)
                        continue;
                    for (int j = 0; j < p->kernel_w; j++) {
                        int column = left + j * p->dilation_w;
                        if (column < 0 || column >= p->in_w)
                            continue;
                        sum += (in[(row * p->in_w + column) * p->in_c + o / times] - p->in_zero)
                            * weights[(i * p->kernel_w + j) * p->out_c + o];
                    }
                }
                *out++ = ep_clamp(ep_multiply(sum, multiplier[o], shift[o]) + p->out_zero, p->low, p->high);
            }
        }
}

EP_FN void ep_pool(const ep_window *p, int average, const int8_t *in, int8_t *out)
{
    for (int y = 0; y < p->out_h; y++)
        for (int x = 0; x < p->out_w; x++) {
            int top = y * p->stride_h - p->pad_h, left = x * p->stride_w - p->pad_w;
            for (int c = 0; c < p->in_c; c++) {
                int32_t sum = 0, most = -128, count = 0;
                for (int i = 0; i < p->kernel_h; i++)
                    for (int j = 0; j < p->kernel_w; j++) {
                        int row = top + i, column = left + j;
                        if (row < 0 || row >= p->in_h || column < 0 || column >= p->in_w)
                            continue;
                        int32_t v = in[(row * p->in_w + column) * p->in_c + c];
                        sum += v;
                        count++;
                        if (v > most)
                            most = v;
                    }
                if (average)
                    most = sum > 0 ? (sum + count / 2) / count : (sum - count / 2) / count;
                *out++ = ep_clamp(most, p->low, p->high);
            }
        }
}

/* ---- products and sums -------------------------------------------------------------------------------------------- */

EP_FN void ep_dense(const int8_t *in, int n, int32_t in_zero, const int8_t *weights, const int32_t *bias,
                    const int32_t *multiplier, const int8_t *shift, int per_channel, int m, int32_t out_zero,
                    int32_t low, int32_t high, int8_t *out)
{
    for (int o = 0; o < m; o++) {
        int32_t sum = bias ? bias[o] : 0;
        for (int i = 0; i < n; i++)
            sum += (in[i] - in_zero) * weights[i];
        weights += n;
        int k = per_channel ? o : 0;
        out[o] = ep_clamp(ep_multiply(sum, multiplier[k], shift[k]) + out_zero, low, high);
    }
}

typedef struct {
    int32_t zero_a, multiplier_a, zero_b, multiplier_b, out_zero, out_multiplier, low, high;
    int shift_a, shift_b, out_shift;
} ep_sum;

EP_FN void ep_add(const ep_sum *p, const int8_t *a, const int8_t *b, int n, int8_t *out)
{
    for (int i = 0; i < n; i++) {
        int32_t left = ep_multiply((a[i] - p->zero_a) * (1 << 20), p->multiplier_a, p->shift_a);
        int32_t right = ep_multiply((b[i] - p->zero_b) * (1 << 20), p->multiplier_b, p->shift_b);
        out[i] = ep_clamp(ep_multiply(left + right, p->out_multiplier, p->out_shift) + p->out_zero, p->low, p->high);
    }
}

/* The mean over height and width; multiplier and shift hold the division by their product. */
EP_FN void ep_mean(const int8_t *in, int area, int channels, int32_t in_zero, int32_t multiplier, int shift,
                   int32_t out_zero, int8_t *out)
{
    for (int c = 0; c < channels; c++) {
        int32_t sum = 0;
        for (int i = 0; i < area; i++)
            sum += in[i * channels + c];
        out[c] = ep_clamp(ep_multiply(sum - in_zero * area, multiplier, shift) + out_zero, -128, 127);
    }
}

/* ---- values ------------------------------------------------------------------------------------------------------- */

EP_FN void ep_rescale(const int8_t *in, int n, int32_t in_zero, int32_t multiplier, int shift, int32_t out_zero,
                      int32_t low, int32_t high, int8_t *out)
{
    for (int i = 0; i < n; i++)
        out[i] = ep_clamp(ep_multiply(in[i] - in_zero, multiplier, shift) + out_zero, low, high);
}

EP_FN void ep_pad(const int8_t *in, int h, int w, int c, int top, int bottom, int left, int right, int before, int after,
                  int8_t value, int8_t *out)
{
    int width = left + w + right, depth = before + c + after;
    memset(out, value, (size_t)(top + h + bottom) * width * depth);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            memcpy(out + ((y + top) * width + x + left) * depth + before, in + (y * w + x) * c, (size_t)c);
}

/* ---- softmax: gemmlowp's fixed point, Qm.n as int32_t ------------------------------------------------------------- */

EP_FN int32_t ep_shift_up(int32_t x, int bits)
{
    int32_t limit = (int32_t)(((int64_t)1 << (31 - bits)) - 1);
    return x > limit ? INT32_MAX : x < -limit - 1 ? INT32_MIN : (int32_t)((uint32_t)x << bits);
}

EP_FN int32_t ep_add_saturating(int32_t a, int32_t b)
{
    int64_t sum = (int64_t)a + b;
    return sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : (int32_t)sum;
}

/* exp of a number in [-1/4, 0), Q0.31 */
EP_FN int32_t ep_exp_quarter(int32_t a)
{
    const int32_t constant = 1895147668, third = 715827883;
    int32_t x = a + (1 << 28);
    int32_t x2 = ep_high_mul(x, x), x3 = ep_high_mul(x2, x), x4 = ep_high_mul(x2, x2);
    int32_t tail = ep_divide_pot(ep_high_mul(ep_divide_pot(x4, 2) + x3, third) + x2, 1);
    return ep_add_saturating(constant, ep_high_mul(constant, x + tail));
}

/* exp of a number that is not positive, Q5.26 to Q0.31 */
EP_FN int32_t ep_exp(int32_t a)
{
    static const int32_t factors[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    const int32_t quarter = 1 << 24;
    int32_t part = (a & (quarter - 1)) - quarter;
    int32_t result = ep_exp_quarter(ep_shift_up(part, 5));
    int32_t rest = part - a;
    for (int i = 0; i < 7; i++)
        if (rest & (1 << (24 + i)))
            result = ep_high_mul(result, factors[i]);
    return a == 0 ? INT32_MAX : result;
}

/* 1 / (1 + x) for x in [0, 1), Q0.31, by Newton and Raphson */
EP_FN int32_t ep_reciprocal(int32_t a)
{
    int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
    int32_t x = 1515870810 + ep_high_mul(half, -1010580540); /* Q2.29 */
    for (int i = 0; i < 3; i++) {
        int32_t rest = (1 << 29) - ep_high_mul(half, x);
        x += ep_shift_up(ep_high_mul(x, rest), 2);
    }
    return ep_shift_up(x, 1);
}

EP_FN void ep_softmax(const int8_t *in, int rows, int n, int32_t multiplier, int shift, int32_t least, int8_t *out)
{
    for (int r = 0; r < rows; r++, in += n, out += n) {
        int32_t most = in[0], sum = 0;
        for (int i = 1; i < n; i++)
            if (in[i] > most)
                most = in[i];
        for (int i = 0; i < n; i++)
            if (in[i] - most >= least)
                sum += ep_divide_pot(ep_exp(ep_high_mul((in[i] - most) * (1 << shift), multiplier)), 12);
        int zeros = 0;
        while (zeros < 32 && !((uint32_t)sum >> (31 - zeros)))
            zeros++;
        int32_t scale = ep_reciprocal((int32_t)(((uint32_t)sum << zeros) - ((uint32_t)1 << 31)));
        for (int i = 0; i < n; i++) {
            int32_t v = -128;
            if (in[i] - most >= least) {
                int32_t power = ep_exp(ep_high_mul((in[i] - most) * (1 << shift), multiplier));
                v = ep_divide_pot(ep_high_mul(scale, power), 12 - zeros + 31 - 8) - 128;
            }
            out[i] = ep_clamp(v, -128, 127);
        }
    }
}

#endif
