/* Decode the part of JPEG images that a crop needs, and resize it: the kernel of larder.stream.
 *
 * larder_jpeg_crop_batch gives the pixels of Pillow's
 *
 *     image.convert("RGB").crop(region).resize((resized_width, resized_height), BILINEAR).crop(window)
 *
 * bit by bit. But it decodes only the rows and columns that the window needs, and never holds a whole image: libjpeg-turbo
 * gives a few rows at a time, each is resized horizontally into a ring of rows, and an output row is made when all of its
 * rows are in the ring. (libjpeg itself holds the coefficients of a progressive image.)
 *
 * With `eighths` below 8, libjpeg makes a smaller image from the lower frequencies of each block, in less time. The region is
 * then the same part of that image, so its edges may lie within pixels. The result is that of Pillow's
 *
 *     image.draft(None, scaled_size).convert("RGB").crop(whole_pixels).resize(size, BILINEAR, box=region).crop(window)
 *
 * The arithmetic is Pillow's: a triangle filter that grows with the ratio of the sizes; weights normalized in double and
 * rounded to 22 bits; 32-bit sums; each of the two passes rounds to 8 bits. Compile with -ffp-contract=off: a fused
 * multiply-add changes the last bit of a weight. From Pillow 13 on, the vertical pass is the first if the height shrinks
 * by more than twice as many pixels as the width; then the ring holds rows as they were decoded.
 *
 * Huffman codes of usual images are decoded by jpeg_huffman.h, which is faster than libjpeg.
 *
 * The AVX2 path multiplies 16-bit numbers (vpmaddwd is several times as fast as vpmulld), so it splits a weight into its
 * upper and lower 11 bits. Both paths have equal bits.
 *
 * No function keeps state outside of a scratch, and a call works on the calling thread alone. A scratch serves one call at
 * a time. The inputs are hostile: every length, size and offset is checked before it is used.
 */

#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2001000
#error "libjpeg-turbo 2.1 or newer is needed: older ones crop and skip with other pixels"
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2 1
#include <immintrin.h>
#else
#define HAVE_AVX2 0
#endif

#include "jpeg_huffman.h"

#define EXPORT __attribute__((visibility("default")))

#define ABI 2
#define MESSAGE_BYTES 200
#define MAX_SIDE 65500                    /* libjpeg's own limit */
#define MAX_PIXELS 178956970              /* above it, Pillow refuses to open an image */
#define MAX_SCANS 50                      /* larder/images.py */
#define MAX_LIBJPEG_BYTES (1L << 28)      /* what libjpeg may hold of an image: 89 megapixels of a progressive one */
#define MAX_SCRATCH_BYTES ((size_t)1 << 28)

#define PRECISION 22                      /* bits of a weight */
#define LOWER_BITS 11                     /* of them, those in the lower of the two parts for AVX2 */
#define WHOLE 8                           /* eighths of an image that libjpeg doesn't scale */
#define READ_ROWS 4                       /* rows asked of libjpeg at once: it gives one or two */
#define SOURCE_BYTES 4                    /* of a decoded pixel: R, G, B and a byte that is not used */
#define MARGIN_COLUMNS 2                  /* columns beyond the needed ones: smooth upsampling of chroma looks at a neighbour */
#define MARGIN_ROWS 2
#define SMALLEST_CROP 64                  /* narrower ones make libjpeg choose another kind of upsampling */
#define SLACK 64                          /* bytes behind a row that may be read or written */
#define OFF_ALIGNMENT 16                  /* libjpeg-turbo bypasses the cache when it writes rows at multiples of 32 */

enum status { DONE = 0, UNSUPPORTED = 1, DAMAGED = 2, INVALID = 3, NO_MEMORY = 4 };
enum { AGAIN = 5 };                       /* libjpeg's own Huffman decoder must decide; callers never see this status */

/* What a caller wants of an image, in pixels. All windows of a batch have the same size. */
typedef struct {
    int32_t x, y, width, height;          /* the region of the image: pixels around it have no weight */
    int32_t resized_width, resized_height;
    int32_t window_x, window_y;           /* where the window begins in the resized region */
    int32_t flip;                         /* mirror the window, left to right */
    int32_t eighths;                      /* of its size at which libjpeg decodes the image: 1, 2, 4 or 8 */
} larder_crop;

/* What an image's header says. */
typedef struct {
    int32_t width, height;
    int32_t components;
    int32_t supported;                    /* larder_jpeg_crop_batch decodes such images */
    int32_t progressive;
    int32_t rgb;                          /* its components are not luma and chroma */
} larder_header;

typedef struct {
    int width, height;
} extent;

/* The pixels that hold a region, along one axis: `size` of them from `first` on. The region lies from `begin` to `end`, counted
 * from the first one's edge. */
typedef struct {
    int first, size;
    double begin, end;
} span;

/* The weights of one axis: output position i takes source positions start[i] to start[i] + taps - 1. */
typedef struct {
    int32_t *start;
    int32_t *weights;                     /* taps of each position; those that aren't used are 0 */
    int32_t taps;                         /* the same for all positions */
    int32_t first, last;                  /* source positions in use, the last one excluded */
    size_t start_bytes, weights_bytes;
} axis;

typedef struct {
    void *data;
    size_t bytes;
} buffer;

typedef struct {
    struct jpeg_error_mgr manager;
    jmp_buf escape;
    int status;
    char *message;
} failure;

typedef struct larder_scratch {
    struct jpeg_decompress_struct decoder;  /* the first member: libjpeg passes its address to decode_mcu */
    struct jpeg_progress_mgr progress;
    failure failure;
    int portable;                         /* vector instructions aren't used */
    int own_huffman;
    axis columns, rows;
    buffer packed_columns, source, ring, taps, wide, narrow, scan;
    huffman huffman;
} larder_scratch;

/* ---- Failures: an error and a warning of libjpeg end the image. ---- */

static void say(char *message, const char *text) {
    snprintf(message, MESSAGE_BYTES, "%s", text);
}

static void fail(j_common_ptr decoder) {
    failure *failed = (failure *)decoder->err;
    char text[JMSG_LENGTH_MAX];
    switch (decoder->err->msg_code) {
        case JERR_OUT_OF_MEMORY: failed->status = NO_MEMORY; break;
        case JERR_NO_BACKING_STORE:       /* it would need more than MAX_LIBJPEG_BYTES */
        case JERR_SOF_UNSUPPORTED:        /* what this libjpeg can't do, Pillow's may */
        case JERR_NOTIMPL:
        case JERR_NOT_COMPILED:
        case JERR_BAD_PRECISION:
        case JERR_COMPONENT_COUNT:
        case JERR_CONVERSION_NOTIMPL:
        case JERR_FRACT_SAMPLE_NOTIMPL: failed->status = UNSUPPORTED; break;
        default: failed->status = DAMAGED;
    }
    (*decoder->err->format_message)(decoder, text);
    say(failed->message, text);
    longjmp(failed->escape, 1);
}

static void notice(j_common_ptr decoder, int level) {
    if (level < 0) fail(decoder);         /* a warning: what follows is guessed */
}

static void output_nothing(j_common_ptr decoder) {
    (void)decoder;
}

/* An image of thousands of empty scans is small but takes minutes. */
static void limit_scans(j_common_ptr decoder) {
    j_decompress_ptr self = (j_decompress_ptr)decoder;
    failure *failed = (failure *)decoder->err;
    if (self->input_scan_number <= MAX_SCANS) return;
    failed->status = UNSUPPORTED;
    say(failed->message, "more scans than a usual JPEG file has");
    longjmp(failed->escape, 1);
}

/* ---- Memory: grows to what the largest image needed. ---- */

static int reserve(buffer *kept, size_t bytes) {
    if (bytes <= kept->bytes) return 1;
    if (bytes > MAX_SCRATCH_BYTES) return 0;
    size_t rounded = (bytes + 4095) & ~(size_t)4095;
    void *fresh = aligned_alloc(64, rounded);
    if (!fresh) return 0;
    memset(fresh, 0, rounded);            /* slack is read, and multiplied by 0 */
    free(kept->data);
    kept->data = fresh;
    kept->bytes = rounded;
    return 1;
}

static int reserve_integers(int32_t **numbers, size_t *bytes, size_t count) {
    buffer kept = {*numbers, *bytes};
    if (count > MAX_SCRATCH_BYTES / sizeof(int32_t) || !reserve(&kept, count * sizeof(int32_t))) return 0;
    *numbers = kept.data;
    *bytes = kept.bytes;
    return 1;
}

/* Each image has a decoder of its own: one that is used again keeps the tables of the image before, and would decode with
 * them an image that lacks its own. */
static void start_decoder(larder_scratch *scratch) {
    memset(&scratch->decoder, 0, sizeof scratch->decoder);  /* so that it can be destroyed if it can't be created */
    scratch->decoder.err = jpeg_std_error(&scratch->failure.manager);
    scratch->failure.manager.error_exit = fail;
    scratch->failure.manager.emit_message = notice;
    scratch->failure.manager.output_message = output_nothing;
    scratch->progress.progress_monitor = limit_scans;
    jpeg_create_decompress(&scratch->decoder);
    scratch->decoder.mem->max_memory_to_use = MAX_LIBJPEG_BYTES;
}

EXPORT larder_scratch *larder_scratch_new(int portable) {
    larder_scratch *scratch = calloc(1, sizeof *scratch);
    if (!scratch) return NULL;
    scratch->own_huffman = !portable;
    scratch->portable = 1;
#if HAVE_AVX2
    __builtin_cpu_init();
    scratch->portable = portable || !__builtin_cpu_supports("avx2");
#endif
    return scratch;
}

EXPORT void larder_scratch_free(larder_scratch *scratch) {
    if (!scratch) return;
    free(scratch->columns.start);
    free(scratch->columns.weights);
    free(scratch->rows.start);
    free(scratch->rows.weights);
    free(scratch->packed_columns.data);
    free(scratch->source.data);
    free(scratch->ring.data);
    free(scratch->taps.data);
    free(scratch->wide.data);
    free(scratch->narrow.data);
    free(scratch->scan.data);
    free(scratch);
}

EXPORT int larder_kernel_abi(void) {
    return ABI;
}

EXPORT int larder_scratch_is_portable(const larder_scratch *scratch) {
    return scratch->portable;
}

/* ---- Weights ---- */

static double triangle(double distance) {
    distance = fabs(distance);
    return distance < 1.0 ? 1.0 - distance : 0.0;
}

/* Return where the region of `size` pixels from `first` on is in a scaled image. */
static span scaled(int first, int size, int eighths) {
    int begin = first * eighths, end = begin + size * eighths;  /* in eighths of a scaled pixel: at most 8 * MAX_SIDE */
    int outer = begin / WHOLE, outer_end = (end + WHOLE - 1) / WHOLE;
    return (span){outer, outer_end - outer, (double)begin / WHOLE - outer, (double)end / WHOLE - outer};
}

/* Compute the weights of `count` output positions from `begin` on, of `out_size` that are made of a region. They count the
 * image's positions. 0 if memory is short. */
static int weigh(axis *self, const span *region, int out_size, int begin, int count) {
    int size = region->size;
    double scale = (region->end - region->begin) / out_size;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = filter_scale;        /* that of the triangle is 1 */
    size_t most = (size_t)ceil(support) * 2 + 1;
    if (!reserve_integers(&self->start, &self->start_bytes, (size_t)count)) return 0;
    if (most > MAX_SCRATCH_BYTES / (size_t)count) return 0;
    if (!reserve_integers(&self->weights, &self->weights_bytes, most * (size_t)count)) return 0;
    double inverse = 1.0 / filter_scale;
    int longest = 1;
    self->first = size;
    self->last = 0;
    for (int i = 0; i < count; i++) {
        double center = region->begin + (begin + i + 0.5) * scale;
        int start = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        if (start < 0) start = 0;
        if (end > size) end = size;
        int taps = end - start;
        int32_t *weights = self->weights + most * (size_t)i;
        double sum = 0.0;
        for (int tap = 0; tap < taps; tap++) sum += triangle((tap + start - center + 0.5) * inverse);
        for (int tap = 0; tap < taps; tap++) {
            double weight = triangle((tap + start - center + 0.5) * inverse);
            if (sum != 0.0) weight /= sum;
            weights[tap] = (int32_t)(0.5 + weight * (1 << PRECISION));
        }
        int skipped = 0;                  /* a weight of 0 needs no decoded pixel */
        while (taps > 1 && weights[taps - 1] == 0) taps--;
        while (skipped < taps - 1 && weights[skipped] == 0) skipped++;
        taps -= skipped;
        memmove(weights, weights + skipped, (size_t)taps * sizeof *weights);
        memset(weights + taps, 0, (most - (size_t)taps) * sizeof *weights);
        self->start[i] = start + skipped;
        if (taps > longest) longest = taps;
        if (self->start[i] < self->first) self->first = self->start[i];
        if (self->start[i] + taps > self->last) self->last = self->start[i] + taps;
    }
    self->taps = longest;
    for (int i = 1; i < count; i++) {     /* close up: rows of `longest` instead of `most` */
        memmove(self->weights + (size_t)longest * (size_t)i, self->weights + most * (size_t)i,
                (size_t)longest * sizeof *self->weights);
    }
    for (int i = 0; i < count; i++) self->start[i] += region->first;
    self->first += region->first;
    self->last += region->first;
    return 1;
}

/* Mirror an axis, so that a flip costs nothing. */
static void mirror(axis *self, int count) {
    for (int low = 0, high = count - 1; low < high; low++, high--) {
        int32_t start = self->start[low];
        self->start[low] = self->start[high];
        self->start[high] = start;
        for (int tap = 0; tap < self->taps; tap++) {
            int32_t *one = self->weights + (size_t)self->taps * (size_t)low + tap;
            int32_t *other = self->weights + (size_t)self->taps * (size_t)high + tap;
            int32_t weight = *one;
            *one = *other;
            *other = weight;
        }
    }
}

/* ---- The portable passes ---- */

static uint8_t rounded(int32_t sum) {
    int32_t value = sum >> PRECISION;
    return value > 255 ? 255 : (uint8_t)value;
}

/* Resize a row of 4-byte pixels, whose first is source position `offset`, to `count` pixels of three bytes. */
static void resize_row(uint8_t *out, const uint8_t *row, const axis *columns, int offset, int count) {
    for (int i = 0; i < count; i++) {
        const int32_t *weights = columns->weights + (size_t)columns->taps * (size_t)i;
        const uint8_t *pixel = row + (size_t)(columns->start[i] - offset) * SOURCE_BYTES;
        int32_t red = 1 << (PRECISION - 1), green = red, blue = red;
        for (int tap = 0; tap < columns->taps; tap++, pixel += SOURCE_BYTES) {
            if (weights[tap] == 0) break;  /* weights that aren't used come last, behind pixels that may not exist */
            red += weights[tap] * pixel[0];
            green += weights[tap] * pixel[1];
            blue += weights[tap] * pixel[2];
        }
        out[3 * i] = rounded(red);
        out[3 * i + 1] = rounded(green);
        out[3 * i + 2] = rounded(blue);
    }
}

/* Weigh `taps` rows of `bytes` bytes. */
static void blend_rows(uint8_t *out, const uint8_t *const *rows, const int32_t *weights, int taps, size_t bytes) {
    enum { BLOCK = 64 };
    for (size_t begin = 0; begin < bytes; begin += BLOCK) {
        size_t many = bytes - begin < BLOCK ? bytes - begin : BLOCK;
        int32_t sums[BLOCK];
        for (size_t i = 0; i < BLOCK; i++) sums[i] = 1 << (PRECISION - 1);
        for (int tap = 0; tap < taps; tap++) {
            const uint8_t *row = rows[tap] + begin;
            int32_t weight = weights[tap];
            for (size_t i = 0; i < BLOCK; i++) sums[i] += weight * row[i];  /* slack makes a whole block readable */
        }
        for (size_t i = 0; i < many; i++) out[begin + i] = rounded(sums[i]);
    }
}

/* ---- The same with AVX2 ---- */

#if HAVE_AVX2

#define AVX2 __attribute__((target("avx2")))

/* Output columns are made in units of four, taps in groups of four. For each unit: four starts, in bytes; then for each
 * group two pairs of columns (0 and 2, 1 and 3) of four vectors: taps 0 and 1, upper part and lower part, taps 2 and 3,
 * upper and lower part; the first column's weights in a vector's lower half. */
typedef struct {
    int32_t start[4];
    int32_t unused[4];
} unit_head;

static const int PAIRED_COLUMN[2][2] = {{0, 2}, {1, 3}};

static int groups_of(const axis *columns) {
    return (columns->taps + 3) / 4;
}

static size_t unit_bytes(int groups) {
    return sizeof(unit_head) + (size_t)groups * 8 * 32;
}

static int32_t tap_weight(const axis *columns, int count, int column, int tap) {
    if (column >= count || tap >= columns->taps) return 0;
    return columns->weights[(size_t)columns->taps * (size_t)column + tap];
}

/* Two 16-bit parts side by side, as vpmaddwd multiplies them. */
static int32_t side_by_side(int32_t first, int32_t second) {
    return (int32_t)((uint32_t)first | (uint32_t)second << 16);
}

static int pack_columns(buffer *packed, const axis *columns, int offset, int count) {
    int groups = groups_of(columns), units = (count + 3) / 4;
    const int32_t lower = (1 << LOWER_BITS) - 1;
    if (!reserve(packed, unit_bytes(groups) * (size_t)units)) return 0;
    for (int unit = 0; unit < units; unit++) {
        char *at = (char *)packed->data + unit_bytes(groups) * (size_t)unit;
        unit_head *head = (unit_head *)at;
        int32_t *vectors = (int32_t *)(at + sizeof *head);
        for (int i = 0; i < 4; i++) {
            int column = 4 * unit + i;
            head->start[i] = column < count ? (columns->start[column] - offset) * SOURCE_BYTES : 0;
        }
        for (int group = 0; group < groups; group++) {
            for (int pair = 0; pair < 2; pair++) {
                for (int half = 0; half < 2; half++) {
                    int column = 4 * unit + PAIRED_COLUMN[pair][half];
                    for (int two = 0; two < 2; two++) {
                        int32_t a = tap_weight(columns, count, column, 4 * group + 2 * two);
                        int32_t b = tap_weight(columns, count, column, 4 * group + 2 * two + 1);
                        int32_t *to = vectors + (group * 8 + pair * 4 + two * 2) * 8 + half * 4;
                        for (int channel = 0; channel < 4; channel++) {
                            to[channel] = side_by_side(a >> LOWER_BITS, b >> LOWER_BITS);
                            to[channel + 8] = side_by_side(a & lower, b & lower);
                        }
                    }
                }
            }
        }
    }
    return 1;
}

AVX2 static inline __m256i two_pixels_blocks(const uint8_t *first, const uint8_t *second) {
    __m128i low = _mm_loadu_si128((const __m128i *)first);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_loadu_si128((const __m128i *)second), 1);
}

/* Add four taps of two columns of a row to its sums. */
#define ADD_TAPS(pixels, vectors, upper, lower)                                                           \
    do {                                                                                                  \
        __m256i front_ = _mm256_shuffle_epi8(pixels, taps_01), back_ = _mm256_shuffle_epi8(pixels, taps_23); \
        upper = _mm256_add_epi32(upper, _mm256_add_epi32(_mm256_madd_epi16(front_, (vectors)[0]),           \
                                                         _mm256_madd_epi16(back_, (vectors)[2])));          \
        lower = _mm256_add_epi32(lower, _mm256_add_epi32(_mm256_madd_epi16(front_, (vectors)[1]),           \
                                                         _mm256_madd_epi16(back_, (vectors)[3])));          \
    } while (0)

AVX2 static inline __m256i whole(__m256i upper, __m256i lower) {
    return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(upper, LOWER_BITS), lower), PRECISION);
}

/* resize_row of two rows at once. Reads and writes up to SLACK bytes behind the rows. */
AVX2 static void resize_rows_avx2(uint8_t *out_a, uint8_t *out_b, const uint8_t *a, const uint8_t *b,
                                  const char *packed, int groups, int count) {
    const __m256i taps_01 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1));
    const __m256i taps_23 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1));
    const __m256i without_fourth = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    const __m256i half = _mm256_set1_epi32(1 << (PRECISION - 1));
    const size_t step = unit_bytes(groups);
    for (int i = 0; i < count; i += 4, packed += step, out_a += 12, out_b += 12) {
        const int32_t *start = ((const unit_head *)packed)->start;
        const __m256i *vectors = (const __m256i *)(packed + sizeof(unit_head));
        __m256i upper_a0 = _mm256_setzero_si256(), upper_a1 = upper_a0, upper_b0 = upper_a0, upper_b1 = upper_a0;
        __m256i lower_a0 = half, lower_a1 = half, lower_b0 = half, lower_b1 = half;
        for (int group = 0; group < groups; group++, vectors += 8) {
            ptrdiff_t on = (ptrdiff_t)group * 4 * SOURCE_BYTES;
            __m256i a0 = two_pixels_blocks(a + start[0] + on, a + start[2] + on);
            __m256i a1 = two_pixels_blocks(a + start[1] + on, a + start[3] + on);
            __m256i b0 = two_pixels_blocks(b + start[0] + on, b + start[2] + on);
            __m256i b1 = two_pixels_blocks(b + start[1] + on, b + start[3] + on);
            ADD_TAPS(a0, vectors, upper_a0, lower_a0);
            ADD_TAPS(b0, vectors, upper_b0, lower_b0);
            ADD_TAPS(a1, vectors + 4, upper_a1, lower_a1);
            ADD_TAPS(b1, vectors + 4, upper_b1, lower_b1);
        }
        /* Lower halves have columns 0 and 1, upper ones 2 and 3: of row a, then of row b. */
        __m256i of_a = _mm256_packs_epi32(whole(upper_a0, lower_a0), whole(upper_a1, lower_a1));
        __m256i of_b = _mm256_packs_epi32(whole(upper_b0, lower_b0), whole(upper_b1, lower_b1));
        __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(of_a, of_b), _MM_SHUFFLE(3, 1, 2, 0));
        bytes = _mm256_shuffle_epi8(bytes, without_fourth);
        _mm_storeu_si128((__m128i *)out_a, _mm256_castsi256_si128(bytes));
        _mm_storeu_si128((__m128i *)out_b, _mm256_extracti128_si256(bytes, 1));
    }
}

/* blend_rows of 32 bytes. */
AVX2 static inline __m256i blend_32(const uint8_t *const *rows, const int32_t *weights, int taps, size_t at) {
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(1 << (PRECISION - 1));
    const int32_t lower_mask = (1 << LOWER_BITS) - 1;
    __m256i upper0 = zero, upper1 = zero, upper2 = zero, upper3 = zero;
    __m256i lower0 = half, lower1 = half, lower2 = half, lower3 = half;
    for (int tap = 0; tap < taps; tap += 2) {
        int more = tap + 1 < taps;
        int32_t first = weights[tap], second = more ? weights[tap + 1] : 0;
        __m256i upper = _mm256_set1_epi32(side_by_side(first >> LOWER_BITS, second >> LOWER_BITS));
        __m256i lower = _mm256_set1_epi32(side_by_side(first & lower_mask, second & lower_mask));
        __m256i a = _mm256_loadu_si256((const __m256i *)(rows[tap] + at));
        __m256i b = _mm256_loadu_si256((const __m256i *)(rows[tap + more] + at));
        __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
        __m256i pairs0 = _mm256_unpacklo_epi8(low, zero), pairs1 = _mm256_unpackhi_epi8(low, zero);
        __m256i pairs2 = _mm256_unpacklo_epi8(high, zero), pairs3 = _mm256_unpackhi_epi8(high, zero);
        upper0 = _mm256_add_epi32(upper0, _mm256_madd_epi16(pairs0, upper));
        upper1 = _mm256_add_epi32(upper1, _mm256_madd_epi16(pairs1, upper));
        upper2 = _mm256_add_epi32(upper2, _mm256_madd_epi16(pairs2, upper));
        upper3 = _mm256_add_epi32(upper3, _mm256_madd_epi16(pairs3, upper));
        lower0 = _mm256_add_epi32(lower0, _mm256_madd_epi16(pairs0, lower));
        lower1 = _mm256_add_epi32(lower1, _mm256_madd_epi16(pairs1, lower));
        lower2 = _mm256_add_epi32(lower2, _mm256_madd_epi16(pairs2, lower));
        lower3 = _mm256_add_epi32(lower3, _mm256_madd_epi16(pairs3, lower));
    }
    return _mm256_packus_epi16(_mm256_packs_epi32(whole(upper0, lower0), whole(upper1, lower1)),
                               _mm256_packs_epi32(whole(upper2, lower2), whole(upper3, lower3)));
}

AVX2 static void blend_rows_avx2(uint8_t *out, const uint8_t *const *rows, const int32_t *weights, int taps,
                                 size_t bytes) {
    size_t at = 0;
    for (; at + 32 <= bytes; at += 32) {
        _mm256_storeu_si256((__m256i *)(out + at), blend_32(rows, weights, taps, at));
    }
    if (at < bytes) {
        uint8_t rest[32];
        _mm256_storeu_si256((__m256i *)rest, blend_32(rows, weights, taps, at));
        memcpy(out + at, rest, bytes - at);
    }
}

#endif

/* ---- Decoding ---- */

static int refuse(larder_scratch *scratch, int status, const char *text) {
    scratch->failure.status = status;
    say(scratch->failure.message, text);
    return status;
}

static int samplings_are_usual(j_decompress_ptr decoder) {
    if (decoder->num_components == 1) return 1;
    int across = decoder->comp_info[0].h_samp_factor, down = decoder->comp_info[0].v_samp_factor;
    if (across == 3 || down == 3) return 0;
    for (int i = 1; i < decoder->num_components; i++) {
        if (decoder->comp_info[i].h_samp_factor != 1 || decoder->comp_info[i].v_samp_factor != 1) return 0;
    }
    return 1;
}

/* Older versions than 3 crop rows of such images with a wrong width of chroma. */
static int is_hard_to_scale(j_decompress_ptr decoder) {
    return decoder->comp_info[0].h_samp_factor * decoder->comp_info[0].v_samp_factor > 4 && decoder->num_components > 1;
}

static const char *unsupported_feature(j_decompress_ptr decoder) {
    J_COLOR_SPACE colors = decoder->jpeg_color_space;
    if (decoder->data_precision != 8) return "its samples don't have 8 bits";
    if (decoder->arith_code) return "its coding is arithmetic";
    if (colors != JCS_GRAYSCALE && colors != JCS_YCbCr && colors != JCS_RGB) return "its colours are not RGB or grayscale";
    if (!samplings_are_usual(decoder)) return "its subsampling is unusual";
    if (decoder->image_width > MAX_SIDE || decoder->image_height > MAX_SIDE) return "it is too large";
    if ((uint64_t)decoder->image_width * decoder->image_height > MAX_PIXELS) return "it has too many pixels";
    return NULL;
}

/* A progressive file may end before all bits of the coefficients came. Decoders then guess them, each in its own way. */
static int is_unfinished(j_decompress_ptr decoder) {
    if (!decoder->progressive_mode || !decoder->coef_bits) return 0;
    for (int component = 0; component < decoder->num_components; component++) {
        for (int i = 0; i < DCTSIZE2; i++) {
            if (decoder->coef_bits[component][i] != 0) return 1;
        }
    }
    return 0;
}

/* Whether there is an end of image behind the header. Of what is not decoded, nobody else notices that it is missing. */
static int has_end(const uint8_t *begin, const uint8_t *end) {
    for (const uint8_t *at = end; at - begin >= 2; at--) {
        if (at[-1] == JPEG_EOI && at[-2] == 0xFF) return 1;
    }
    return 0;
}

static int region_is_inside(const larder_crop *crop, int width, int height) {
    return crop->x >= 0 && crop->y >= 0 && crop->width >= 1 && crop->height >= 1 && crop->x < width && crop->y < height
           && crop->width <= width - crop->x && crop->height <= height - crop->y;
}

static int window_is_inside(const larder_crop *crop, extent window) {
    return crop->resized_width >= 1 && crop->resized_height >= 1 && crop->window_x >= 0 && crop->window_y >= 0
           && crop->window_x < crop->resized_width && crop->window_y < crop->resized_height
           && window.width <= crop->resized_width - crop->window_x
           && window.height <= crop->resized_height - crop->window_y;
}

/* Have libjpeg leave out the columns that aren't needed. Return the first one that it gives. */
static int crop_columns(j_decompress_ptr decoder, const axis *columns) {
    JDIMENSION width = decoder->output_width;
    JDIMENSION begin = columns->first > MARGIN_COLUMNS ? (JDIMENSION)(columns->first - MARGIN_COLUMNS) : 0;
    JDIMENSION end = (JDIMENSION)columns->last + MARGIN_COLUMNS;
    if (end - begin < SMALLEST_CROP) end = begin + SMALLEST_CROP;
    if (end > width) end = width;
    if (end - begin < SMALLEST_CROP) begin = end > SMALLEST_CROP ? end - SMALLEST_CROP : 0;
    if (begin == 0 && end == width) return 0;
    JDIMENSION many = end - begin;
    jpeg_crop_scanline(decoder, &begin, &many);
    return (int)begin;
}

/* Have libjpeg leave out rows at the top. Return the number of the first one that it gives. */
static int skip_rows(j_decompress_ptr decoder, const axis *rows) {
    if (rows->first <= MARGIN_ROWS) return 0;
    return (int)jpeg_skip_scanlines(decoder, (JDIMENSION)(rows->first - MARGIN_ROWS));
}

/* Where pixels lie on their way. Decoded rows go through `resized` rows in the ring; or, if the vertical pass is the first,
 * are decoded into the ring, and a weighed row is `wide` before it is resized. */
typedef struct {
    int vertical_first;
    int offset;                           /* the image's column at which decoded rows begin */
    uint8_t *source, *ring, *wide, *narrow;
    size_t source_pitch, ring_pitch;
    unsigned ring_mask;
    const uint8_t **taps;
} row_store;

static size_t pitch_of(size_t bytes) {
    return (bytes + SLACK + 63) & ~(size_t)63;
}

static int reserve_rows(larder_scratch *scratch, extent window, row_store *store) {
    size_t decoded_pitch = pitch_of((size_t)scratch->decoder.output_width * SOURCE_BYTES);
    size_t resized_pitch = pitch_of((size_t)window.width * 3);
    size_t beyond = ((size_t)scratch->columns.taps + 4) * SOURCE_BYTES;  /* taps of weight 0 behind the last pixel */
    unsigned many = 1;
    while (many < (unsigned)scratch->rows.taps + READ_ROWS + 1) many *= 2;
    store->ring_mask = many - 1;
    store->source_pitch = decoded_pitch;
    store->ring_pitch = store->vertical_first ? decoded_pitch : resized_pitch;
    if (store->ring_pitch > MAX_SCRATCH_BYTES / many) return 0;
    if (!reserve(&scratch->ring, OFF_ALIGNMENT + many * store->ring_pitch)
        || !reserve(&scratch->source, OFF_ALIGNMENT + READ_ROWS * decoded_pitch + beyond)
        || !reserve(&scratch->wide, decoded_pitch + beyond) || !reserve(&scratch->narrow, resized_pitch)
        || !reserve(&scratch->taps, (size_t)scratch->rows.taps * sizeof *store->taps)) return 0;
    store->source = (uint8_t *)scratch->source.data + OFF_ALIGNMENT;
    store->ring = (uint8_t *)scratch->ring.data + OFF_ALIGNMENT;
    store->wide = scratch->wide.data;
    store->narrow = scratch->narrow.data;
    store->taps = scratch->taps.data;
    return 1;
}

static uint8_t *ring_row(const row_store *store, int row) {
    return store->ring + ((unsigned)row & store->ring_mask) * store->ring_pitch;
}

/* Resize two rows; out_b and b may be out_a and a again. */
static void resize_rows(larder_scratch *scratch, const row_store *store, uint8_t *out_a, uint8_t *out_b,
                        const uint8_t *a, const uint8_t *b, int width) {
#if HAVE_AVX2
    if (!scratch->portable) {
        resize_rows_avx2(out_a, out_b, a, b, scratch->packed_columns.data, groups_of(&scratch->columns), width);
        return;
    }
#endif
    resize_row(out_a, a, &scratch->columns, store->offset, width);
    if (out_b != out_a) resize_row(out_b, b, &scratch->columns, store->offset, width);
}

/* The number of taps of an output row that have weight: there may be no rows for the others. */
static int taps_of_row(const axis *rows, int number) {
    const int32_t *weights = rows->weights + (size_t)rows->taps * (size_t)number;
    int taps = rows->taps;
    while (taps > 1 && weights[taps - 1] == 0) taps--;
    return taps;
}

/* Weigh the rows of the ring that an output row needs. */
static void blend(larder_scratch *scratch, const row_store *store, int number, uint8_t *out, size_t bytes) {
    const axis *rows = &scratch->rows;
    const int32_t *weights = rows->weights + (size_t)rows->taps * (size_t)number;
    int taps = taps_of_row(rows, number);
    for (int tap = 0; tap < taps; tap++) store->taps[tap] = ring_row(store, rows->start[number] + tap);
#if HAVE_AVX2
    if (!scratch->portable) {
        blend_rows_avx2(out, store->taps, weights, taps, bytes);
        return;
    }
#endif
    blend_rows(out, store->taps, weights, taps, bytes);
}

/* Make an output row from the ring. */
static void make_row(larder_scratch *scratch, const row_store *store, int number, int width, uint8_t *out) {
    size_t bytes = (size_t)width * 3;
    if (!store->vertical_first) {
        blend(scratch, store, number, out, bytes);
        return;
    }
    blend(scratch, store, number, store->wide, (size_t)scratch->decoder.output_width * SOURCE_BYTES);
    resize_rows(scratch, store, store->narrow, store->narrow, store->wide, store->wide, width);
    memcpy(out, store->narrow, bytes);    /* they are written with slack */
}

/* Decode a few rows, from `row` on, and have them in the ring. Return how many. */
static int take_rows(larder_scratch *scratch, const row_store *store, int row, int width) {
    JSAMPROW into[READ_ROWS];
    for (int i = 0; i < READ_ROWS; i++) {
        into[i] = store->vertical_first ? ring_row(store, row + i) : store->source + (size_t)i * store->source_pitch;
    }
    int many = (int)jpeg_read_scanlines(&scratch->decoder, into, READ_ROWS);
    if (store->vertical_first || row + many <= scratch->rows.first) return many;
    for (int i = 0; i < many; i += 2) {
        int second = i + 1 < many ? i + 1 : i;
        resize_rows(scratch, store, ring_row(store, row + i), ring_row(store, row + second), into[i], into[second], width);
    }
    return many;
}

static void stream_rows(larder_scratch *scratch, const row_store *store, extent window, int row, uint8_t *out) {
    int made = 0;
    while (made < window.height) {
        row += take_rows(scratch, store, row, window.width);
        while (made < window.height && scratch->rows.start[made] + taps_of_row(&scratch->rows, made) <= row) {
            make_row(scratch, store, made, window.width, out + (size_t)made * (size_t)window.width * 3);
            made++;
        }
    }
}

static void read_header(larder_scratch *scratch, const uint8_t *jpeg, size_t length) {
    j_decompress_ptr decoder = &scratch->decoder;
    start_decoder(scratch);
    jpeg_mem_src(decoder, jpeg, (unsigned long)length);
    jpeg_read_header(decoder, TRUE);
}

/* Compute both axes' weights, and the order of the passes. */
static int weigh_axes(larder_scratch *scratch, const larder_crop *crop, extent window, row_store *store) {
    span across = scaled(crop->x, crop->width, crop->eighths), down = scaled(crop->y, crop->height, crop->eighths);
    if (!weigh(&scratch->columns, &across, crop->resized_width, crop->window_x, window.width)
        || !weigh(&scratch->rows, &down, crop->resized_height, crop->window_y, window.height)) return 0;
    if (crop->flip) mirror(&scratch->columns, window.width);
    int narrower = across.size - crop->resized_width, lower = down.size - crop->resized_height;
    store->vertical_first = lower > 0 && lower > 2 * narrower;  /* as Pillow decides it */
    return 1;
}

/* libjpeg calls this for each unit of a scan. */
static boolean decode_mcu(j_decompress_ptr decoder, JBLOCKROW *blocks) {
    larder_scratch *scratch = (larder_scratch *)decoder;
    if (!decode_unit(&scratch->huffman, decoder->blocks_in_MCU, blocks)) {
        scratch->failure.status = AGAIN;
        longjmp(scratch->failure.escape, 1);
    }
    return TRUE;
}

/* Have decode_mcu decode the scan that libjpeg has begun, if it can. */
static void replace_huffman(larder_scratch *scratch) {
    j_decompress_ptr decoder = &scratch->decoder;
    if (jpeg_has_multiple_scans(decoder) || !is_simple_scan(decoder)) return;
    size_t bytes = decoder->src->bytes_in_buffer;
    if (bytes > MAX_SCRATCH_BYTES - PADDING || !reserve(&scratch->scan, bytes + PADDING)) return;
    if (start_scan(&scratch->huffman, decoder, scratch->scan.data)) {
        ((entropy_decoder *)decoder->entropy)->decode_mcu = decode_mcu;
    }
}

/* Return whether libjpeg scales the image as it was asked to. It ignores that for lossless files. */
static int is_scaled(j_decompress_ptr decoder, int eighths) {
    uint64_t width = ((uint64_t)decoder->image_width * (uint64_t)eighths + WHOLE - 1) / WHOLE;
    uint64_t height = ((uint64_t)decoder->image_height * (uint64_t)eighths + WHOLE - 1) / WHOLE;
    return decoder->output_width == width && decoder->output_height == height;
}

/* Decode, below setjmp. */
static int decode(larder_scratch *scratch, const uint8_t *jpeg, size_t length, const larder_crop *crop, extent window,
                  uint8_t *out, int own_huffman) {
    j_decompress_ptr decoder = &scratch->decoder;
    read_header(scratch, jpeg, length);
    const char *feature = unsupported_feature(decoder);
    if (feature) return refuse(scratch, UNSUPPORTED, feature);
    if (crop->eighths != WHOLE && is_hard_to_scale(decoder)) {
        return refuse(scratch, UNSUPPORTED, "its subsampling is unusual");
    }
    const uint8_t *body = decoder->src->next_input_byte;
    if (!region_is_inside(crop, (int)decoder->image_width, (int)decoder->image_height)) {
        return refuse(scratch, INVALID, "the region is not inside the image");
    }
    if (!has_end(body, jpeg + length)) return refuse(scratch, DAMAGED, "it has no end of image");
    row_store store = {0};
    if (!weigh_axes(scratch, crop, window, &store)) return refuse(scratch, NO_MEMORY, "no memory for the weights");
    decoder->out_color_space = JCS_EXT_RGBX;
    decoder->scale_num = (unsigned)crop->eighths;
    decoder->scale_denom = WHOLE;
    decoder->progress = jpeg_has_multiple_scans(decoder) ? &scratch->progress : NULL;
    jpeg_start_decompress(decoder);
    if (!is_scaled(decoder, crop->eighths)) return refuse(scratch, UNSUPPORTED, "it is a lossless file");
    if (is_unfinished(decoder)) return refuse(scratch, UNSUPPORTED, "it is a progressive file without its last scans");
    if (own_huffman) replace_huffman(scratch);
    store.offset = crop_columns(decoder, &scratch->columns);
    if (!reserve_rows(scratch, window, &store)) return refuse(scratch, NO_MEMORY, "no memory for the rows");
#if HAVE_AVX2
    if (!scratch->portable && !pack_columns(&scratch->packed_columns, &scratch->columns, store.offset, window.width)) {
        return refuse(scratch, NO_MEMORY, "no memory for the weights");
    }
#endif
    int row = skip_rows(decoder, &scratch->rows);
    stream_rows(scratch, &store, window, row, out);
    return DONE;
}

static int decode_safely(larder_scratch *scratch, const uint8_t *jpeg, size_t length, const larder_crop *crop,
                         extent window, uint8_t *out, char *message, int own_huffman) {
    scratch->failure.message = message;
    scratch->failure.status = DAMAGED;
    message[0] = 0;
    if (setjmp(scratch->failure.escape)) {
        jpeg_destroy_decompress(&scratch->decoder);
        return scratch->failure.status;
    }
    int status = decode(scratch, jpeg, length, crop, window, out, own_huffman);
    jpeg_destroy_decompress(&scratch->decoder);
    return status;
}

static int decode_image(larder_scratch *scratch, const uint8_t *jpeg, size_t length, const larder_crop *crop,
                        extent window, uint8_t *out, char *message) {
    int status = decode_safely(scratch, jpeg, length, crop, window, out, message, scratch->own_huffman);
    return status != AGAIN ? status : decode_safely(scratch, jpeg, length, crop, window, out, message, 0);
}

static int check_window(const larder_crop *crop, extent window, char *message) {
    if (crop->eighths != 1 && crop->eighths != 2 && crop->eighths != 4 && crop->eighths != WHOLE) {
        say(message, "it is not 1, 2, 4 or 8 eighths");
        return INVALID;
    }
    if (!window_is_inside(crop, window)) {
        say(message, "the window is not inside the resized region");
        return INVALID;
    }
    if (crop->resized_width > MAX_SIDE || crop->resized_height > MAX_SIDE) {
        say(message, "it is resized to too large a size");
        return UNSUPPORTED;
    }
    return DONE;
}

/* Decode `count` images to windows of the same size: image i to `out` + i * width * height * 3, in rows of RGB pixels.
 * statuses[i] and messages[i] say what became of it; where the status isn't 0, its part of the output is undefined. Return
 * how many failed. */
EXPORT size_t larder_jpeg_crop_batch(larder_scratch *scratch, size_t count, const uint8_t *const *jpegs,
                                     const size_t *lengths, const larder_crop *crops, int32_t width, int32_t height,
                                     uint8_t *out, int32_t *statuses, char (*messages)[MESSAGE_BYTES]) {
    size_t failed = 0;
    extent window = {width, height};
    for (size_t i = 0; i < count; i++) {
        statuses[i] = width < 1 || height < 1 ? INVALID : check_window(crops + i, window, messages[i]);
        if (statuses[i] == DONE) {
            uint8_t *to = out + i * ((size_t)width * (size_t)height * 3);
            statuses[i] = decode_image(scratch, jpegs[i], lengths[i], crops + i, window, to, messages[i]);
        }
        failed += statuses[i] != DONE;
    }
    return failed;
}

/* ---- Headers ---- */

/* Fill in a header; leave it as it is if there is none. */
static void header_safely(larder_scratch *scratch, const uint8_t *jpeg, size_t length, larder_header *header) {
    char message[MESSAGE_BYTES];
    scratch->failure.message = message;
    if (setjmp(scratch->failure.escape)) {
        jpeg_destroy_decompress(&scratch->decoder);
        return;
    }
    j_decompress_ptr decoder = &scratch->decoder;
    read_header(scratch, jpeg, length);
    header->width = (int32_t)decoder->image_width;
    header->height = (int32_t)decoder->image_height;
    header->components = decoder->num_components;
    header->supported = unsupported_feature(decoder) == NULL;
    header->progressive = decoder->progressive_mode;
    header->rgb = decoder->jpeg_color_space == JCS_RGB;
    jpeg_destroy_decompress(decoder);
}

/* Read the headers of `count` images without decoding them. What can't be read has a header of zeros. */
EXPORT void larder_jpeg_headers(larder_scratch *scratch, size_t count, const uint8_t *const *jpegs,
                                const size_t *lengths, larder_header *headers) {
    memset(headers, 0, count * sizeof *headers);
    for (size_t i = 0; i < count; i++) header_safely(scratch, jpegs[i], lengths[i], headers + i);
}
