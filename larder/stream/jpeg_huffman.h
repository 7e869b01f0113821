/* Decode the Huffman codes of sequential JPEG images, in place of libjpeg's function: a part of jpeg_crop.c.
 *
 * libjpeg spends half of an image's time on these codes. It looks up 8 bits at a time, and then takes a coefficient's bits
 * separately. Here, one look-up of LOOKUP_BITS bits gives a whole coefficient, its place and the number of its bits. Scans are
 * copied first, without the zeros that follow each 0xFF, so that 8 bytes can be read at once.
 *
 * It works in scans of all components without restart markers. The coefficients are libjpeg's. Whatever looks damaged is
 * given up: libjpeg then decodes the image from its beginning, and has the last word.
 */

#define LOOKUP_BITS 10                    /* more find more codes, but take more of the first cache */
#define LONGEST_CODE 16
#define PADDING 4096                      /* zeros behind a scan. A unit reads at most 10 blocks of 64 codes of 31 bits behind it */
#define MAX_DC (1 << 20)                  /* larger sums of differences are left to libjpeg */
#define WITHOUT_REFILL 2                  /* look-ups for which 56 bits suffice, behind a code of 31 bits */
#define ENDED 64                          /* an advance that ends any block */

/* What a look-up gives: the number of bits in bits 0 to 5, how many coefficients of 0 come first in bits 8 to 15, and the
 * coefficient in bits 16 to 31. If it is PARTIAL, the bits are those of the code alone, and the coefficient's size is in its
 * place. */
typedef int32_t coded;
#define PARTIAL 0x80
#define UNKNOWN PARTIAL                   /* a longer code, or none */

typedef struct {
    coded lookup[1 << LOOKUP_BITS];
    int32_t limit[LONGEST_CODE + 1];      /* of codes of each length, the first larger number, shifted to 16 bits */
    int32_t first[LONGEST_CODE + 1];      /* the first code of each length, not shifted */
    int32_t place[LONGEST_CODE + 1];      /* of its symbol */
    uint8_t symbols[256];
    uint8_t counts[LONGEST_CODE + 1];     /* of codes of each length */
    int is_dc;
} code_table;

typedef struct {
    uint64_t bits;                        /* the next ones, from the highest bit on */
    int count;                            /* how many of them were counted */
    const uint8_t *at;
} bit_reader;

typedef struct {
    code_table tables[2 * NUM_HUFF_TBLS]; /* DC, then AC */
    bit_reader reader;
    const uint8_t *end;                   /* of the scan */
    const code_table *dc[D_MAX_BLOCKS_IN_MCU], *ac[D_MAX_BLOCKS_IN_MCU];  /* of a unit's blocks */
    int component[D_MAX_BLOCKS_IN_MCU];
    int last_dc[MAX_COMPS_IN_SCAN];
    JBLOCK unwanted;
} huffman;

/* The first members of libjpeg's structure, which no header declares. All versions since 6b begin with these. */
typedef struct {
    void (*start_pass)(j_decompress_ptr decoder);
    boolean (*decode_mcu)(j_decompress_ptr decoder, JBLOCKROW *blocks);
} entropy_decoder;

/* The order of coefficients in a file. Those behind the last go to its place, as libjpeg has it. */
static const uint8_t NATURAL_ORDER[2 * DCTSIZE2] = {
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
};

/* ---- Tables ---- */

/* Return the number that `size` bits stand for: T.81, figure F.12. */
static inline int extended(uint32_t bits, int size) {
    return size == 0 ? 0 : (int)bits - ((bits >> (size - 1)) != 0 ? 0 : (1 << size) - 1);
}

/* Return what a symbol means, as a PARTIAL with a code of `length` bits. */
static coded meaning(int symbol, int length, int is_dc) {
    int run = is_dc ? 0 : symbol >> 4, size = is_dc ? symbol : symbol & 15;
    if (!is_dc && size == 0 && run != 15) run = ENDED;
    return (coded)((uint32_t)size << 16 | (uint32_t)run << 8 | PARTIAL | (uint32_t)length);
}

/* Return what a PARTIAL and the `size` bits behind its code make together. */
static inline coded completed(coded partial, uint32_t bits) {
    int size = partial >> 16;
    uint32_t value = (uint32_t)extended(bits, size) << 16;
    return (coded)(value | ((uint32_t)partial & 0xFF00) | (uint32_t)((partial & 63) + size));
}

static int is_same_table(const code_table *self, const JHUFF_TBL *given) {
    return memcmp(self->counts + 1, given->bits + 1, LONGEST_CODE) == 0
           && memcmp(self->symbols, given->huffval, sizeof self->symbols) == 0;
}

/* Fill in the look-ups of a code, and return 1; 0 if the code is too large for its length. */
static int add_code(code_table *self, int32_t code, int length, coded partial) {
    if (code >= 1 << length) return 0;
    if (length > LOOKUP_BITS) return 1;
    int left = LOOKUP_BITS - length, size = partial >> 16;
    coded *to = self->lookup + ((size_t)code << left);
    for (uint32_t bits = 0; bits < 1u << left; bits++) {
        to[bits] = size > left ? partial : completed(partial, bits >> (left - size));
    }
    return 1;
}

/* Make a table, unless it is the same as for the image before. 0 if it isn't valid. */
static int make_table(code_table *self, const JHUFF_TBL *given, int is_dc) {
    if (!given) return 0;
    if (self->counts[0] && is_same_table(self, given)) return 1;
    memset(self, 0, sizeof *self);
    for (int i = 0; i < 1 << LOOKUP_BITS; i++) self->lookup[i] = UNKNOWN;
    memcpy(self->symbols, given->huffval, sizeof self->symbols);
    memcpy(self->counts + 1, given->bits + 1, LONGEST_CODE);
    int32_t code = 0;
    int place = 0;
    for (int length = 1; length <= LONGEST_CODE; length++, code <<= 1) {
        self->first[length] = code;
        self->place[length] = place;
        for (int i = 0; i < self->counts[length]; i++, code++, place++) {
            if (place >= 256 || (is_dc && self->symbols[place] > 15)) return 0;
            if (!add_code(self, code, length, meaning(self->symbols[place], length, is_dc))) return 0;
        }
        self->limit[length] = code << (LONGEST_CODE - length);
    }
    self->is_dc = is_dc;
    self->counts[0] = 1;                  /* it is valid */
    return 1;
}

/* ---- Bits ---- */

static inline uint64_t eight_bytes(const uint8_t *at) {
    uint64_t bytes;
    memcpy(&bytes, at, sizeof bytes);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return bytes;
#else
    return __builtin_bswap64(bytes);
#endif
}

/* Have at least 56 bits. Those that aren't counted are read once more, to the same places. */
static inline void refill(bit_reader *self) {
    self->bits |= eight_bytes(self->at) >> self->count;
    self->at += (63 - self->count) >> 3;
    self->count |= 56;
}

static inline void drop(bit_reader *self, int count) {
    self->bits <<= count;
    self->count -= count;
}

/* Find a code that is longer than LOOKUP_BITS. Return a PARTIAL, or 0 if there is none. */
static coded find_long(const code_table *table, uint64_t bits) {
    int32_t next = (int32_t)(bits >> (64 - LONGEST_CODE));
    for (int length = LOOKUP_BITS + 1; length <= LONGEST_CODE; length++) {
        if (next < table->limit[length]) {
            int at = table->place[length] + (next >> (LONGEST_CODE - length)) - table->first[length];
            return meaning(table->symbols[at & 255], length, table->is_dc);
        }
    }
    return 0;
}

/* Return what the next bits are, complete; 0 if they are no code. At least 31 bits must be there. */
static inline coded look_up(const code_table *table, uint64_t bits) {
    coded next = table->lookup[bits >> (64 - LOOKUP_BITS)];
    if (__builtin_expect(next & PARTIAL, 0)) {
        if (next == UNKNOWN && (next = find_long(table, bits)) == 0) return 0;
        int size = next >> 16;
        next = completed(next, size ? (uint32_t)(bits << (next & 63) >> (64 - size)) : 0);
    }
    return next;
}

/* ---- Blocks ---- */

/* Take a coefficient, and go on behind the block if it was the last one. */
#define TAKE_COEFFICIENT(next)                                                                            \
    do {                                                                                                  \
        at += (uint8_t)((next) >> 8);                                                                     \
        block[NATURAL_ORDER[at]] = (JCOEF)((next) >> 16);                                                 \
        drop(&reader, (next) & 63);                                                                       \
        if (++at >= DCTSIZE2) goto ended;                                                                 \
    } while (0)

/* Decode a block of zeros. 0 if it looks damaged. */
static inline int decode_block(bit_reader *given, const code_table *dc, const code_table *ac, int *last_dc, JCOEF *block) {
    bit_reader reader = *given;           /* in registers */
    refill(&reader);
    coded next = look_up(dc, reader.bits);
    if (next == 0) return 0;
    drop(&reader, next & 63);
    *last_dc += next >> 16;
    if (*last_dc > MAX_DC || *last_dc < -MAX_DC) return 0;
    block[0] = (JCOEF)*last_dc;
    int at = 1;
    for (;;) {
        refill(&reader);
        next = look_up(ac, reader.bits);
        if (__builtin_expect(next == 0, 0)) return 0;
        TAKE_COEFFICIENT(next);
        for (int i = 0; i < WITHOUT_REFILL; i++) {  /* bits suffice for codes that are found at once */
            next = ac->lookup[reader.bits >> (64 - LOOKUP_BITS)];
            if (next & PARTIAL) break;
            TAKE_COEFFICIENT(next);
        }
    }
ended:
    *given = reader;
    return 1;
}

/* Decode the next unit of a scan, in place of libjpeg's function. 0 if it looks damaged. */
static int decode_unit(huffman *self, int blocks, JBLOCKROW *to) {
    for (int i = 0; i < blocks; i++) {
        JCOEF *block = to ? *to[i] : self->unwanted;  /* rows that aren't needed have no memory */
        if (!decode_block(&self->reader, self->dc[i], self->ac[i], &self->last_dc[self->component[i]], block)) return 0;
    }
    ptrdiff_t left = self->end - self->reader.at;
    return left * 8 + self->reader.count >= 0;
}

/* Copy a scan without the zeros behind each 0xFF, up to the next marker. Return its length. */
static size_t copy_scan(uint8_t *to, const uint8_t *at, size_t bytes) {
    const uint8_t *end = at + bytes;
    uint8_t *begin = to;
    while (at < end) {
        const uint8_t *special = memchr(at, 0xFF, (size_t)(end - at));
        size_t many = (size_t)((special ? special : end) - at);
        memcpy(to, at, many);
        to += many;
        if (!special || end - special < 2 || special[1] != 0) break;
        *to++ = 0xFF;
        at = special + 2;
    }
    return (size_t)(to - begin);
}

/* Whether a scan is one that decode_unit decodes, as far as its header says. */
static int is_simple_scan(j_decompress_ptr decoder) {
    return !decoder->progressive_mode && !decoder->arith_code && decoder->restart_interval == 0
           && decoder->comps_in_scan == decoder->num_components && decoder->blocks_in_MCU <= D_MAX_BLOCKS_IN_MCU
           && decoder->Ss == 0 && decoder->Se == DCTSIZE2 - 1 && decoder->Ah == 0 && decoder->Al == 0;
}

/* Prepare for the scan that libjpeg has begun. `memory` holds its bytes and PADDING. 0 if it is left to libjpeg. */
static int start_scan(huffman *self, j_decompress_ptr decoder, uint8_t *memory) {
    for (int i = 0; i < decoder->blocks_in_MCU; i++) {
        int component = decoder->MCU_membership[i];
        const jpeg_component_info *info = decoder->cur_comp_info[component];
        int dc = info->dc_tbl_no, ac = info->ac_tbl_no;
        if (dc < 0 || dc >= NUM_HUFF_TBLS || ac < 0 || ac >= NUM_HUFF_TBLS) return 0;
        if (!make_table(&self->tables[dc], decoder->dc_huff_tbl_ptrs[dc], 1)
            || !make_table(&self->tables[NUM_HUFF_TBLS + ac], decoder->ac_huff_tbl_ptrs[ac], 0)) return 0;
        self->component[i] = component;
        self->dc[i] = &self->tables[dc];
        self->ac[i] = &self->tables[NUM_HUFF_TBLS + ac];
    }
    size_t length = copy_scan(memory, decoder->src->next_input_byte, decoder->src->bytes_in_buffer);
    memset(memory + length, 0, PADDING);
    memset(self->last_dc, 0, sizeof self->last_dc);
    self->end = memory + length;
    self->reader = (bit_reader){0, 0, memory};
    return 1;
}
