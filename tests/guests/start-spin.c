// Never gets as far as a call: spins while it is being instantiated.
__attribute__((export_name("_initialize"))) void initialize(void) {
  for (volatile unsigned turns = 0;; turns++) {
  }
}

__attribute__((export_name("wasi:http/incoming-handler@0.2.12#handle"))) void handle(unsigned request, unsigned out) {
  (void)request, (void)out;
}
