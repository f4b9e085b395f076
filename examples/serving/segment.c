/* Segment an image with only TensorFlow's C API: no Python, no server.

   The library comes with the TensorFlow wheel (or as libtensorflow, then with -ltensorflow):

     TF=$(python -c "import tensorflow as tf; print(tf.sysconfig.get_lib())" 2>/dev/null)
     gcc -std=c11 -O2 -Wall segment.c -o segment -I"$TF/include" -L"$TF" \
         -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2 -Wl,-rpath,"$TF"
     TF_CPP_MIN_LOG_LEVEL=3 ./segment nuclei/1 image.ppm labels.pgm

   image.ppm is a binary PPM (P6) of 8 bits; labels.pgm a PGM (P5) of 16 bits, 0 = background. The
   variable silences TensorFlow's log, but for a few lines when the library is loaded. */

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

enum { MAX_SIDE = 65535 };

typedef struct {
  const uint8_t* data;
  size_t size;
} Slice;

typedef struct {
  size_t width, height;
  uint8_t* pixels;
} Image;

static void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  fputs("segment: ", stderr);
  vfprintf(stderr, format, values);
  fputc('\n', stderr);
  va_end(values);
  exit(1);
}

/* What went wrong, in a line: the next ones say where in the graph it did. */
static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  const char* message = TF_Message(status);
  const char* assertion = strstr(message, "assertion failed: [");
  if (assertion) message = assertion + strlen("assertion failed: [");
  fail("%s: %.*s", what, (int)strcspn(message, assertion ? "\n]" : "\n"), message);
}

/* One number of a PNM header, after blanks and comments. */
static size_t read_number(FILE* file, const char* path) {
  int c = fgetc(file);
  while (c == '#' || c == ' ' || c == '\t' || c == '\r' || c == '\n') {
    if (c == '#') {
      while (c != '\n' && c != EOF) c = fgetc(file);
    } else {
      c = fgetc(file);
    }
  }
  size_t number = 0;
  if (c < '0' || c > '9') fail("%s: the header of a P6 file is damaged", path);
  for (; c >= '0' && c <= '9'; c = fgetc(file)) {
    number = number * 10 + (size_t)(c - '0');
    if (number > MAX_SIDE) fail("%s: sizes must be at most %d", path, MAX_SIDE);
  }
  if (c == EOF) fail("%s: the header of a P6 file is damaged", path);
  return number; /* One blank behind the number has been read. */
}

static Image read_ppm(const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file) fail("%s: %s", path, strerror(errno));
  if (fgetc(file) != 'P' || fgetc(file) != '6') fail("%s: not a binary PPM (P6) file", path);
  Image image = {0};
  image.width = read_number(file, path);
  image.height = read_number(file, path);
  const size_t most = read_number(file, path);
  if (image.width == 0 || image.height == 0) fail("%s: the image is empty", path);
  if (most != 255) fail("%s: the largest value must be 255, not %zu", path, most);
  const size_t size = image.width * image.height * 3; /* below 2^34 */
  /* Is it all there? A header can claim anything, so ask before allocating. */
  const long start = ftell(file);
  if (start < 0 || fseek(file, 0, SEEK_END) != 0) fail("%s: not a plain file", path);
  const long end = ftell(file);
  if (end < start || (size_t)(end - start) < size)
    fail("%s: %zu x %zu pixels were announced, but the file is too short", path, image.width,
         image.height);
  image.pixels = malloc(size);
  if (!image.pixels) fail("%s: no memory for %zu bytes", path, size);
  if (fseek(file, start, SEEK_SET) != 0 || fread(image.pixels, 1, size, file) != size)
    fail("%s: cannot be read", path);
  fclose(file);
  return image;
}

/* Written under another name first, so that no half a file is left behind. */
static void write_pgm(const char* path, const int32_t* labels, size_t width, size_t height) {
  const size_t length = strlen(path) + sizeof ".part";
  char* part = malloc(length);
  uint8_t* row = malloc(2 * width);
  if (!part || !row) fail("%s: no memory", path);
  snprintf(part, length, "%s.part", path);
  FILE* file = fopen(part, "wb");
  if (!file) fail("%s: %s", part, strerror(errno));
  int good = fprintf(file, "P5\n%zu %zu\n65535\n", width, height) > 0;
  for (size_t y = 0; y < height && good; ++y) {
    for (size_t x = 0; x < width; ++x) {
      const int32_t label = labels[y * width + x];
      if (label < 0 || label > 65535) {
        remove(part);
        fail("%s: label %d does not fit 16 bits", path, (int)label);
      }
      row[2 * x] = (uint8_t)(label >> 8);
      row[2 * x + 1] = (uint8_t)label;
    }
    good = fwrite(row, 2, width, file) == width;
  }
  good = fclose(file) == 0 && good;
  if (!good || rename(part, path) != 0) {
    remove(part);
    fail("%s: cannot be written", path);
  }
  free(row);
  free(part);
}

/* The MetaGraphDef, a protocol buffer, says which tensors a signature takes and gives. These few
   lines walk through one, so that its library is not needed. */

static int read_varint(Slice* message, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64 && message->size > 0; shift += 7) {
    const uint8_t byte = *message->data++;
    --message->size;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return 1;
  }
  return 0;
}

/* Moves on to the next field of this number that holds bytes; 0 at the end. */
static int next_field(Slice* message, uint64_t number, Slice* value) {
  while (message->size > 0) {
    uint64_t key, size;
    if (!read_varint(message, &key)) return 0;
    switch (key & 7) {
      case 0:
        if (!read_varint(message, &size)) return 0;
        continue;
      case 1: size = 8; break;
      case 5: size = 4; break;
      case 2:
        if (!read_varint(message, &size)) return 0;
        break;
      default: return 0;
    }
    if (size > message->size) return 0;
    *value = (Slice){message->data, (size_t)size};
    message->data += size;
    message->size -= size;
    if (key == (number << 3 | 2)) return 1;
  }
  return 0;
}

/* The value of a key in a map<string, message>, which is field `number`. */
static int look_up(Slice message, uint64_t number, const char* name, Slice* value) {
  Slice entry;
  while (next_field(&message, number, &entry)) {
    Slice key, rest = entry;
    if (next_field(&rest, 1, &key) && key.size == strlen(name) &&
        memcmp(key.data, name, key.size) == 0)
      return next_field(&entry, 2, value);
  }
  return 0;
}

enum { SIGNATURE_DEF = 5, INPUTS = 1, OUTPUTS = 2, TENSOR_NAME = 1 };

static TF_Output find(TF_Graph* graph, Slice meta_graph, uint64_t map, const char* name) {
  Slice signature, info, tensor;
  if (!look_up(meta_graph, SIGNATURE_DEF, "serving_default", &signature) ||
      !look_up(signature, map, name, &info) || !next_field(&info, TENSOR_NAME, &tensor))
    fail("the signature serving_default has no '%s'", name);
  char operation[512]; /* "operation:index" */
  if (tensor.size >= sizeof operation) fail("the name of the tensor '%s' is too long", name);
  memcpy(operation, tensor.data, tensor.size);
  operation[tensor.size] = '\0';
  char* colon = strrchr(operation, ':');
  TF_Output output = {NULL, 0};
  if (colon) {
    *colon = '\0';
    output.index = atoi(colon + 1);
  }
  output.oper = TF_GraphOperationByName(graph, operation);
  if (!output.oper || output.index < 0 || output.index >= TF_OperationNumOutputs(output.oper))
    fail("the graph has no tensor '%s'", operation);
  return output;
}

int main(int count, char** values) {
  if (count != 4) fail("usage: segment SAVED_MODEL image.ppm labels.pgm");
  Image image = read_ppm(values[2]);

  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Buffer* meta_graph = TF_NewBuffer();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, values[1], tags, 1, graph,
                                                     meta_graph, status);
  check(status, values[1]);
  const Slice definition = {meta_graph->data, meta_graph->length};
  const TF_Output input = find(graph, definition, INPUTS, "image");
  const TF_Output wanted[] = {find(graph, definition, OUTPUTS, "labels"),
                              find(graph, definition, OUTPUTS, "num_instances")};

  const int64_t shape[] = {1, (int64_t)image.height, (int64_t)image.width, 3};
  const size_t pixels = image.width * image.height;
  TF_Tensor* batch = TF_AllocateTensor(TF_UINT8, shape, 4, pixels * 3);
  if (!batch) fail("no memory for %zu bytes", pixels * 3);
  memcpy(TF_TensorData(batch), image.pixels, pixels * 3);
  free(image.pixels);

  TF_Tensor* results[2] = {NULL, NULL};
  TF_SessionRun(session, NULL, &input, &batch, 1, wanted, results, 2, NULL, 0, NULL, status);
  check(status, values[2]);
  if (TF_TensorType(results[0]) != TF_INT32 || TF_TensorType(results[1]) != TF_INT32 ||
      TF_TensorByteSize(results[0]) != pixels * sizeof(int32_t) ||
      TF_TensorByteSize(results[1]) != sizeof(int32_t))
    fail("the model gives labels of another type or size");
  write_pgm(values[3], TF_TensorData(results[0]), image.width, image.height);
  printf("%d instances, labels in %s\n", (int)*(const int32_t*)TF_TensorData(results[1]),
         values[3]);

  TF_DeleteTensor(batch);
  TF_DeleteTensor(results[0]);
  TF_DeleteTensor(results[1]);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteBuffer(meta_graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
