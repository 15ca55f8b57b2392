// Example function in C without libc: the canonical ABI of wasi:http 0.2 by hand, answering "hello, world\n".
// Imports only wasi:http/types and wasi:io/streams, so there is nothing else to grant or to deny.
typedef unsigned u32;
typedef unsigned long long u64;

#define HTTP "wasi:http/types@0.2.12"
#define STREAMS "wasi:io/streams@0.2.12"
#define IMPORT(module, name) __attribute__((import_module(module), import_name(name))) extern
#define EXPORT(name) __attribute__((export_name(name)))

IMPORT(HTTP, "[constructor]fields") u32 fields_new(void);
IMPORT(HTTP, "[method]fields.append") void fields_append(u32 fields, const char *, u32, const char *, u32, void *result);
IMPORT(HTTP, "[constructor]outgoing-response") u32 response_new(u32 fields);
IMPORT(HTTP, "[method]outgoing-response.body") void response_body(u32 response, void *result);
IMPORT(HTTP, "[method]outgoing-body.write") void body_write(u32 body, void *result);
IMPORT(HTTP, "[static]outgoing-body.finish") void body_finish(u32 body, u32 has_trailers, u32 trailers, void *result);
IMPORT(HTTP, "[static]response-outparam.set")
void outparam_set(u32 out, u32 is_error, u32 response, u32, u64, u32, u32, u32, u32);
IMPORT(HTTP, "[resource-drop]incoming-request") void request_drop(u32 request);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void stream_write(u32 stream, const char *, u32, void *result);
IMPORT(STREAMS, "[resource-drop]output-stream") void stream_drop(u32 stream);

// The host would allocate here to pass strings and lists in; nothing this function calls returns one.
EXPORT("cabi_realloc") void *cabi_realloc(void *old, u32 old_size, u32 align, u32 size) {
  (void)old, (void)old_size, (void)align, (void)size;
  __builtin_trap();
}

// Where the host writes a result: the first byte is 0 for ok, the payload follows at its alignment.
// The largest one, result<_, error-code>, takes 40 bytes.
static union {
  unsigned char is_error;
  struct { u32 tag, value; } handle;
  u64 room[8];
} result;

static u32 taken(void) {
  if (result.is_error) __builtin_trap();
  return result.handle.value;
}

#define TEXT(literal) literal, sizeof literal - 1

EXPORT("wasi:http/incoming-handler@0.2.12#handle") void handle(u32 request, u32 out) {
  request_drop(request);
  u32 headers = fields_new();
  fields_append(headers, TEXT("content-type"), TEXT("text/plain"), &result);
  taken();
  fields_append(headers, TEXT("content-length"), TEXT("13"), &result);
  taken();
  u32 response = response_new(headers);
  response_body(response, &result);
  u32 body = taken();
  outparam_set(out, 0, response, 0, 0, 0, 0, 0, 0);
  body_write(body, &result);
  u32 stream = taken();
  stream_write(stream, TEXT("hello, world\n"), &result);
  stream_drop(stream);
  body_finish(body, 0, 0, &result);
}
