// Traps while it is being instantiated, each time.
__attribute__((export_name("_initialize"))) void initialize(void) { __builtin_trap(); }

__attribute__((export_name("wasi:http/incoming-handler@0.2.12#handle"))) void handle(unsigned request, unsigned out) {
  (void)request, (void)out;
}
