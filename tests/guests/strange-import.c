// Wants an interface that nobody grants.
__attribute__((import_module("strange:host/shell"), import_name("run"))) extern unsigned run(const char *, unsigned);

__attribute__((export_name("wasi:http/incoming-handler@0.2.12#handle"))) void handle(unsigned request, unsigned out) {
  (void)request, (void)out;
  run("id", 2);
}
