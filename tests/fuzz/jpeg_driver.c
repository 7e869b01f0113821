/* Feed the JPEG kernel with images from stdin, and answer with a byte each: `d`, or `-` for one that was refused.
 *
 * tests/fuzz/jpeg.py compiles this with AddressSanitizer. Each buffer has exactly its size, so that a step beyond ends the
 * process. Both paths of the kernel decode each image; any difference ends the process, too.
 */

#include "../../larder/stream/jpeg_crop.c"

typedef struct {
    larder_crop crop;
    int32_t width, height;
    uint32_t length;
} request;

static void give_up(const char *what) {
    fprintf(stderr, "%s\n", what);
    abort();
}

static uint8_t *decode_one(larder_scratch *scratch, const request *asked, const uint8_t *jpeg, int32_t *status) {
    size_t bytes = (size_t)asked->width * (size_t)asked->height * 3, length = asked->length;
    uint8_t *out = malloc(bytes);
    if (!out) give_up("no memory");
    char messages[1][MESSAGE_BYTES];
    size_t failed = larder_jpeg_crop_batch(scratch, 1, &jpeg, &length, &asked->crop, asked->width, asked->height, out,
                                           status, messages);
    if (failed != (*status != DONE)) give_up("it can't count");
    if (failed && memchr(messages[0], 0, MESSAGE_BYTES) == NULL) give_up("the message has no end");
    return out;
}

int main(void) {
    larder_scratch *fastest = larder_scratch_new(0), *portable = larder_scratch_new(1);
    request asked;
    while (fread(&asked, sizeof asked, 1, stdin) == 1) {
        uint8_t *jpeg = malloc(asked.length);
        if (fread(jpeg, 1, asked.length, stdin) != asked.length) give_up("the input ended early");
        const uint8_t *const jpegs[1] = {jpeg};
        size_t length = asked.length;
        larder_header header;
        larder_jpeg_headers(fastest, 1, jpegs, &length, &header);
        int32_t status, other;
        uint8_t *one = decode_one(fastest, &asked, jpeg, &status), *two = decode_one(portable, &asked, jpeg, &other);
        if (status != other) give_up("the paths differ in their status");
        if (status == DONE && !header.supported) give_up("it decodes what it says it can't");
        if (status == DONE && memcmp(one, two, (size_t)asked.width * (size_t)asked.height * 3) != 0) {
            give_up("the paths differ in their pixels");
        }
        putchar(status == DONE ? 'd' : '-');
        fflush(stdout);
        free(one);
        free(two);
        free(jpeg);
    }
    larder_scratch_free(fastest);
    larder_scratch_free(portable);
    return 0;
}
