// Declares a memory of nearly 4 GiB from the start (by a flag of the linker) and touches none of it.
__attribute__((export_name("wasi:http/incoming-handler@0.2.12#handle"))) void handle(unsigned request, unsigned out) {
  (void)request, (void)out;
}
