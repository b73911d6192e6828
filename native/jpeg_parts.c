/* Decode parts of many JPEG tiles straight into the boxes that ask for them: `stages/slide/jpeg_parts.py` calls it.

   Of a tile only the part that some box asks for becomes pixels. Its Huffman codes are read to the stream's end, so that
   damage is told of wherever it lies. Whatever is not plainly in order, in a header, by a warning or by an error of
   libjpeg, is left to the caller, who decodes the whole tile and knows what to say of it.

   It keeps no state, allocates a few lines, and writes nowhere but into the parts of boxes that lie on a tile. */

#include <limits.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2001000
#error "a libjpeg-turbo of 2.1 or newer is needed"
#endif

enum { BLOCK = 8, COMPONENTS = 3, LINES = 8, HOLE = 128, LONGEST = 65500 };

/* A box of the level, in its pixels, and the memory of its RGB: `height` lines, `stride` bytes apart. */
typedef struct {
  int64_t x, y, width, height;
  uint8_t *pixels;
  int64_t stride;
} Box;

/* A tile's stream, its corner in the level's pixels, and which boxes touch it: `count` indices from `first` on. */
typedef struct {
  const uint8_t *stream;
  int64_t length, x, y, first, count;
} Tile;

typedef struct {
  struct jpeg_error_mgr manager;
  jmp_buf out;
} Failure;

static void fail(j_common_ptr jpeg) { longjmp(((Failure *)jpeg->err)->out, 1); }

static void tell(j_common_ptr jpeg, int level) {
  if (level < 0) fail(jpeg); /* a warning: of damage, all of them */
}

static void be_quiet(j_common_ptr jpeg) { (void)jpeg; }

static void nothing(j_decompress_ptr jpeg) { (void)jpeg; }

static boolean end(j_decompress_ptr jpeg) {
  ERREXIT(jpeg, JERR_INPUT_EOF);
  return FALSE;
}

static void pass_over(j_decompress_ptr jpeg, long count) {
  if (count <= 0) return;
  if ((size_t)count > jpeg->src->bytes_in_buffer) end(jpeg);
  jpeg->src->next_input_byte += count;
  jpeg->src->bytes_in_buffer -= (size_t)count;
}

static int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* Whether as many zeros follow each other as a lost sector leaves. */
static int has_hole(const uint8_t *stream, int64_t length) {
  for (int64_t at = HOLE / 2; at < length; at += HOLE / 2) {
    if (stream[at]) continue;
    int64_t first = at, last = at;
    while (first > 0 && !stream[first - 1]) first--;
    while (last + 1 < length && !stream[last + 1]) last++;
    if (last - first + 1 >= HOLE) return 1;
    at = last;
  }
  return 0;
}

/* Where the stream's own segments begin, past those of applications from which colours would be guessed; 0 where its
   headers are not those of one scan of all components, 8 bits each, of this size. */
static int64_t own_segments(const uint8_t *stream, int64_t length, int width, int height) {
  int64_t begin = 0;
  int framed = 0;
  if (length < 4 || stream[0] != 0xFF || stream[1] != 0xD8) return 0;
  for (int64_t at = 2; at + 4 <= length && stream[at] == 0xFF;) {
    int marker = stream[at + 1];
    int64_t size = stream[at + 2] << 8 | stream[at + 3];
    const uint8_t *body = stream + at + 4;
    if (size < 2 || at + 2 + size > length) return 0;
    if (!begin && (marker < 0xE0 || marker > 0xEF)) begin = at;
    if (marker == 0xC0 || marker == 0xC1) {
      if (framed || size < 8 + 3 * COMPONENTS || body[0] != 8 || body[5] != COMPONENTS) return 0;
      if ((body[1] << 8 | body[2]) != height || (body[3] << 8 | body[4]) != width) return 0;
      framed = 1;
    } else if (marker == 0xDA) {
      return framed && size >= 3 && body[0] == COMPONENTS ? begin : 0;
    } else if (marker != 0xC4 && marker != 0xDB && marker != 0xDD && marker != 0xFE && (marker < 0xE0 || marker > 0xEF)) {
      return 0;
    }
    at += 2 + size;
  }
  return 0;
}

/* What a box has of a tile, in the tile's pixels. */
static Box part_of(const Box *box, const Tile *tile, int width, int height) {
  Box part = *box;
  part.x = at_least(0, box->x - tile->x);
  part.y = at_least(0, box->y - tile->y);
  part.width = at_most(width, box->x + box->width - tile->x) - part.x;
  part.height = at_most(height, box->y + box->height - tile->y) - part.y;
  if (part.width < 1 || part.height < 1) {
    part.width = part.height = 0;
    return part;
  }
  part.pixels += (tile->y + part.y - box->y) * box->stride + (tile->x + part.x - box->x) * COMPONENTS;
  return part;
}

/* The smallest part of a tile that holds what its boxes have of it. */
static Box part_of_all(const Tile *tile, const Box *boxes, const int64_t *users, int width, int height) {
  Box all = {0};
  for (int64_t i = 0; i < tile->count; i++) {
    Box part = part_of(&boxes[users[tile->first + i]], tile, width, height);
    if (!part.width) continue;
    if (!all.width) {
      all = part;
      continue;
    }
    int64_t right = at_least(all.x + all.width, part.x + part.width);
    int64_t bottom = at_least(all.y + all.height, part.y + part.height);
    all.x = at_most(all.x, part.x);
    all.y = at_most(all.y, part.y);
    all.width = right - all.x;
    all.height = bottom - all.y;
  }
  return all;
}

/* Whether colours are stored in a way that every decoder knows: in full, or at half or a quarter of a side. */
static int is_usual(const struct jpeg_decompress_struct *jpeg) {
  const jpeg_component_info *part = jpeg->comp_info;
  if (jpeg->num_components != COMPONENTS || jpeg->progressive_mode || jpeg->arith_code) return 0;
  if (jpeg->jpeg_color_space != JCS_RGB && jpeg->jpeg_color_space != JCS_YCbCr) return 0;
  for (int i = 1; i < COMPONENTS; i++)
    if (part[i].h_samp_factor != 1 || part[i].v_samp_factor != 1) return 0;
  switch (part[0].h_samp_factor << 4 | part[0].v_samp_factor) {
    case 0x11: case 0x21: case 0x22: case 0x12: case 0x41:
      return 1;
  }
  return 0;
}

/* Decode what boxes have of a tile, row by row. */
static void decode_part(struct jpeg_decompress_struct *jpeg, int width, int height, const Box *all, const Tile *tile,
                        const Box *boxes, const int64_t *users, uint8_t *lines) {
  /* colours at half width are smoothed between neighbours, which a part's border hides: a unit more is decoded */
  int64_t across = jpeg->max_h_samp_factor > 1 ? BLOCK * jpeg->max_h_samp_factor : 0;
  JDIMENSION left = (JDIMENSION)at_least(0, all->x - across);
  JDIMENSION wide = (JDIMENSION)at_most(width, all->x + all->width + across) - left;
  if (all->width && wide < (JDIMENSION)width) {
    jpeg_crop_scanline(jpeg, &left, &wide);
  } else {
    left = 0;
    wide = (JDIMENSION)width;
  }
  if (wide != jpeg->output_width || left > all->x || left + wide < all->x + all->width)
    ERREXIT(jpeg, JERR_WIDTH_OVERFLOW);
  if (all->y) jpeg_skip_scanlines(jpeg, (JDIMENSION)all->y);

  int64_t bottom = all->y + all->height, bytes = (int64_t)wide * COMPONENTS;
  int straight = tile->count == 1 && (int64_t)left == all->x && (int64_t)wide == all->width;
  JSAMPROW rows[LINES];
  for (int64_t y = all->y; y < bottom;) {
    JDIMENSION asked = (JDIMENSION)at_most(LINES, bottom - y);
    for (JDIMENSION i = 0; i < asked; i++)
      rows[i] = straight ? all->pixels + (y - all->y + i) * all->stride : lines + i * bytes;
    JDIMENSION found = jpeg_read_scanlines(jpeg, rows, asked);
    if (!found) ERREXIT(jpeg, JERR_CANT_SUSPEND);
    for (int64_t user = 0; user < tile->count && !straight; user++) {
      Box part = part_of(&boxes[users[tile->first + user]], tile, width, height);
      int64_t last = at_most(y + found, part.y + part.height);
      for (int64_t line = at_least(y, part.y); line < last; line++)
        memcpy(part.pixels + (line - part.y) * part.stride, rows[line - y] + (part.x - left) * COMPONENTS,
               (size_t)part.width * COMPONENTS);
    }
    y += found;
  }
  /* to skip to the end would be to stop: the last line is read, and all codes before it */
  if (bottom < height) {
    if (bottom < height - 1) jpeg_skip_scanlines(jpeg, (JDIMENSION)(height - 1 - bottom));
    rows[0] = lines;
    jpeg_read_scanlines(jpeg, rows, 1);
  }
}

/* Compilers make this quick where a processor can put three lines' bytes side by side; libjpeg goes byte by byte. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
__attribute__((optimize("O3"), target_clones("avx2", "default")))
#endif
static void put_side_by_side(uint8_t *restrict to, const uint8_t *restrict red, const uint8_t *restrict green,
                             const uint8_t *restrict blue, int64_t width) {
  for (int64_t i = 0; i < width; i++) {
    to[3 * i] = red[i];
    to[3 * i + 1] = green[i];
    to[3 * i + 2] = blue[i];
  }
}

/* Decode a tile of RGB, all of which belongs into one box. */
static void decode_rgb(struct jpeg_decompress_struct *jpeg, const Box *part, uint8_t *lines) {
  int64_t padded = (part->width + BLOCK - 1) / BLOCK * BLOCK;
  JSAMPROW rows[COMPONENTS][BLOCK];
  JSAMPARRAY planes[COMPONENTS] = {rows[0], rows[1], rows[2]};
  for (int i = 0; i < COMPONENTS * BLOCK; i++) rows[i / BLOCK][i % BLOCK] = lines + i * padded;
  for (int64_t y = 0; y < part->height; y += BLOCK) {
    if (jpeg_read_raw_data(jpeg, planes, BLOCK) != BLOCK) ERREXIT(jpeg, JERR_CANT_SUSPEND);
    for (int64_t i = 0; i < at_most(BLOCK, part->height - y); i++)
      put_side_by_side(part->pixels + (y + i) * part->stride, rows[0][i], rows[1][i], rows[2][i], part->width);
  }
}

/* Whether the tile's pixels are in its boxes now. Nothing may follow its stream: libjpeg reads the last bytes that it has
   in another way, which tells of more damage, and the plain path counts on that. */
static int decode_tile(const uint8_t *stream, int64_t length, int width, int height, const Tile *tile, const Box *boxes,
                       const int64_t *users, uint8_t *lines) {
  struct jpeg_decompress_struct decoder, *jpeg = &decoder; /* of this tile alone: tables would be the next one's, too */
  struct jpeg_source_mgr source = {stream, (size_t)length, nothing, end, pass_over, jpeg_resync_to_restart,
                                   nothing};
  Failure failure;
  memset(jpeg, 0, sizeof *jpeg);
  jpeg->err = jpeg_std_error(&failure.manager);
  failure.manager.error_exit = fail;
  failure.manager.emit_message = tell;
  failure.manager.output_message = be_quiet;
  if (setjmp(failure.out)) {
    jpeg_destroy_decompress(jpeg);
    return 0;
  }
  jpeg_create_decompress(jpeg); /* an error where the library is not the one that was compiled for */
  jpeg->src = &source;
  jpeg_read_header(jpeg, TRUE);
  if ((int)jpeg->image_width != width || (int)jpeg->image_height != height || !is_usual(jpeg))
    ERREXIT(jpeg, JERR_CONVERSION_NOTIMPL);
  Box all = part_of_all(tile, boxes, users, width, height);
  jpeg->out_color_space = JCS_RGB;
  jpeg->dct_method = JDCT_ISLOW;
  jpeg->do_fancy_upsampling = TRUE;
  jpeg->raw_data_out = tile->count == 1 && all.width == width && all.height == height &&
                       jpeg->jpeg_color_space == JCS_RGB && jpeg->comp_info[0].h_samp_factor == 1 &&
                       jpeg->comp_info[0].v_samp_factor == 1;
  jpeg_start_decompress(jpeg);
  if (jpeg->raw_data_out)
    decode_rgb(jpeg, &all, lines);
  else
    decode_part(jpeg, width, height, &all, tile, boxes, users, lines);
  jpeg_finish_decompress(jpeg);
  jpeg_destroy_decompress(jpeg);
  return 1;
}

/* Decode tiles of one size into boxes.

   before: what stands before every stream: a start, colours and tables.
   width, height: of a tile.
   users: `users_count` indices of boxes, which tiles refer to.
   done: of each tile, whether all its pixels are where they belong; else the boxes hold anything there.

   Its name says which arguments it takes: raise the number with any change of them, here and where it is called. */
void decode_parts_1(const uint8_t *before, int64_t before_length, int64_t width, int64_t height, const Tile *tiles,
                    int64_t tiles_count, const Box *boxes, int64_t boxes_count, const int64_t *users,
                    int64_t users_count, uint8_t *done) {
  int64_t longest = 0;
  memset(done, 0, (size_t)tiles_count);
  if (width < 1 || height < 1 || width > LONGEST || height > LONGEST) return;
  for (int64_t i = 0; i < users_count; i++)
    if (users[i] < 0 || users[i] >= boxes_count) return;
  for (int64_t i = 0; i < tiles_count; i++) longest = at_least(longest, tiles[i].length);
  uint8_t *lines = malloc((size_t)(LINES * (width + BLOCK) * COMPONENTS));
  uint8_t *stream = malloc((size_t)(before_length + longest));
  if (lines && stream) {
    memcpy(stream, before, (size_t)before_length);
    for (int64_t i = 0; i < tiles_count; i++) {
      const Tile *tile = &tiles[i];
      if (tile->first < 0 || tile->count < 0 || tile->first + tile->count > users_count) continue;
      int64_t begin = own_segments(tile->stream, tile->length, (int)width, (int)height);
      if (!begin || has_hole(tile->stream, tile->length)) continue;
      int64_t length = before_length + tile->length - begin;
      memcpy(stream + before_length, tile->stream + begin, (size_t)(tile->length - begin));
      done[i] = (uint8_t)decode_tile(stream, length, (int)width, (int)height, tile, boxes, users, lines);
    }
  }
  free(stream);
  free(lines);
}
