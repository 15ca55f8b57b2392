// A valid component, but a command: nothing here answers HTTP.
__attribute__((export_name("wasi:cli/run@0.2.12#run"))) unsigned run(void) { return 0; }
