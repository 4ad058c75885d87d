/* Runs endpoints of a SavedModel through TensorFlow's C API: no Python in the process.
 *
 *   run_saved_model EXPORT_DIR < requests > answers
 *
 * One request per line: INPUT_TENSOR OUTPUT_TENSOR RANK D0 D1 ... V0 V1 ...   (float32)
 * One answer per line:  "ok RANK D0 D1 ... V0 V1 ..." or "error CODE MESSAGE".
 * The last line lists the mapped files of the process that belong to Python, if any.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tensorflow/c/c_api.h"

static TF_Output find(TF_Graph *graph, char *tensor) {
  TF_Output output = {NULL, 0};
  char *colon = strrchr(tensor, ':');
  if (colon != NULL) {
    output.index = atoi(colon + 1);
    *colon = '\0';
  }
  output.oper = TF_GraphOperationByName(graph, tensor);
  return output;
}

static void answer(TF_Session *session, TF_Graph *graph, char *line) {
  char *input_name = strtok(line, " \n"), *output_name = strtok(NULL, " \n");
  char *word = strtok(NULL, " \n");
  int rank = word == NULL ? -1 : atoi(word);
  int64_t shape[8], count = 1;
  if (rank < 0 || rank > 8) {
    puts("error -1 malformed request");
    return;
  }
  for (int k = 0; k < rank; k++) {
    shape[k] = atoll(strtok(NULL, " \n"));
    count *= shape[k];
  }
  TF_Output from = find(graph, input_name), to = find(graph, output_name);
  if (from.oper == NULL || to.oper == NULL) {
    puts("error -1 no such tensor");
    return;
  }
  TF_Tensor *input = TF_AllocateTensor(TF_FLOAT, shape, rank, count * sizeof(float));
  float *values = TF_TensorData(input);
  for (int64_t k = 0; k < count; k++) values[k] = strtof(strtok(NULL, " \n"), NULL);

  TF_Tensor *output = NULL;
  TF_Status *status = TF_NewStatus();
  TF_SessionRun(session, NULL, &from, &input, 1, &to, &output, 1, NULL, 0, NULL, status);
  TF_DeleteTensor(input);
  if (TF_GetCode(status) != TF_OK) {
    char message[400];
    snprintf(message, sizeof message, "%s", TF_Message(status));
    message[strcspn(message, "\n")] = '\0';
    printf("error %d %s\n", TF_GetCode(status), message);
  } else {
    printf("ok %d", TF_NumDims(output));
    for (int k = 0; k < TF_NumDims(output); k++) printf(" %lld", (long long)TF_Dim(output, k));
    const float *data = TF_TensorData(output);
    for (int64_t k = 0; k < TF_TensorElementCount(output); k++) printf(" %.9g", data[k]);
    puts("");
    TF_DeleteTensor(output);
  }
  TF_DeleteStatus(status);
}

static void print_python_files(void) {
  char line[4096];
  FILE *maps = fopen("/proc/self/maps", "r");
  printf("python:");
  while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
    char *path = strchr(line, '/');
    char *file = path == NULL ? NULL : strrchr(path, '/');
    if (file != NULL && (strstr(file, "libpython") || strstr(file, ".cpython-"))) {
      printf(" %.*s", (int)strcspn(file, "\n"), file);
    }
  }
  puts("");
  if (maps != NULL) fclose(maps);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s EXPORT_DIR < requests\n", argv[0]);
    return 2;
  }
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  if (TF_GetCode(status) != TF_OK) {
    fprintf(stderr, "%s\n", TF_Message(status));
    return 1;
  }
  char *line = NULL;
  size_t size = 0;
  while (getline(&line, &size, stdin) > 0) answer(session, graph, line);
  print_python_files();
  free(line);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return 0;
}
