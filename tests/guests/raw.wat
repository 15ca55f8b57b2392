;; What no compiler writes: a component by hand, whose last character of the path names the attack. The tests turn this
;; text into a component themselves. What each attack must end as is in tests/attack/hostile/table.rs.
(component
  (import "wasi:http/types@0.2.12" (instance $types
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type $request (sub resource)))
    (export "response-outparam" (type $outparam (sub resource)))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.has" (func (param "self" (borrow $fields)) (param "name" string) (result bool)))
    (export "[method]incoming-request.path-with-query"
      (func (param "self" (borrow $request)) (result (option string))))))
  (alias export $types "fields" (type $fields))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core func $new-fields (canon lower (func $types "[constructor]fields")))

  ;; What the host calls back into, and the switch that makes it hostile.
  (core module $behind
    (import "host" "new-fields" (func $new-fields (result i32)))
    (memory (export "memory") 2)
    (global $mode (export "mode") (mut i32) (i32.const 0))
    (global $next (mut i32) (i32.const 4096))
    (func $spin (loop $again (br $again)))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (if (i32.eq (global.get $mode) (i32.const 108)) (then (return (i32.const -16))))      ;; l: a wild pointer
      (if (i32.eq (global.get $mode) (i32.const 109)) (then (call $spin)))                  ;; m
      (if (i32.eq (global.get $mode) (i32.const 110)) (then (drop (call $new-fields))))     ;; n: enters the host anew
      (if (i32.eq (global.get $mode) (i32.const 65)) (then (unreachable)))                  ;; A
      (if (i32.eq (global.get $mode) (i32.const 66)) (then (return (i32.const 1))))         ;; B: not aligned, harmless
      (global.get $next)
      (global.set $next (i32.add (global.get $next) (local.get 3))))
    (func (export "destroy") (param i32)
      (if (i32.eq (global.get $mode) (i32.const 48)) (then (call $spin)))                   ;; 0
      (if (i32.eq (global.get $mode) (i32.const 49)) (then (unreachable))))                 ;; 1
    (func (export "after")
      (if (i32.eq (global.get $mode) (i32.const 106)) (then (call $spin)))                  ;; j
      (if (i32.eq (global.get $mode) (i32.const 107)) (then (unreachable)))                 ;; k
      (if (i32.eq (global.get $mode) (i32.const 67)) (then (drop (call $new-fields))))))    ;; C: enters the host then

  (core instance $behind (instantiate $behind
    (with "host" (instance (export "new-fields" (func $new-fields))))))
  (alias core export $behind "memory" (core memory $memory))
  (type $mine (resource (rep i32) (dtor (core func $behind "destroy"))))
  (core func $new-mine (canon resource.new $mine))
  (core func $drop-mine (canon resource.drop $mine))
  (core func $drop-fields (canon resource.drop $fields))
  (core func $drop-outparam (canon resource.drop $outparam))
  (core func $path (canon lower (func $types "[method]incoming-request.path-with-query")
    (memory (core memory $memory)) (realloc (core func $behind "realloc"))))
  (core func $has (canon lower (func $types "[method]fields.has") (memory (core memory $memory))))
  (core func $has16 (canon lower (func $types "[method]fields.has") (memory (core memory $memory)) string-encoding=utf16))

  (core module $main
    (import "behind" "memory" (memory 2))
    (import "behind" "mode" (global $mode (mut i32)))
    (import "host" "new-fields" (func $new-fields (result i32)))
    (import "host" "new-mine" (func $new-mine (param i32) (result i32)))
    (import "host" "drop-mine" (func $drop-mine (param i32)))
    (import "host" "drop-fields" (func $drop-fields (param i32)))
    (import "host" "drop-outparam" (func $drop-outparam (param i32)))
    (import "host" "path" (func $path (param i32 i32)))
    (import "host" "has" (func $has (param i32 i32 i32) (result i32)))
    (import "host" "has16" (func $has16 (param i32 i32 i32) (result i32)))
    (type $taking-nothing (func))
    (table $table 4 100000 funcref)
    (elem (i32.const 0) $nothing)
    (data (i32.const 256) "\ff\fe\fd\00")
    (data (i32.const 260) "\00\d8\00\d8")
    (func $nothing (param i64))
    (func $deep (param i64 i64 i64 i64) (result i64)
      (i64.add
        (call $deep (local.get 1) (local.get 2) (local.get 3) (i64.add (local.get 0) (i64.const 1)))
        (call $deep (local.get 3) (local.get 2) (local.get 1) (i64.add (local.get 0) (i64.const 2)))))
    (func $name-of (param $at i32) (param $length i32)
      (drop (call $has (call $new-fields) (local.get $at) (local.get $length))))
    (func $name16-of (param $at i32) (param $length i32)
      (drop (call $has16 (call $new-fields) (local.get $at) (local.get $length))))
    (func $ask-again (param $request i32) (call $path (local.get $request) (i32.const 16)))

    (func (export "handle") (param $request i32) (param $out i32)
      (local $what i32)
      (call $path (local.get $request) (i32.const 0))
      (local.set $what (i32.load8_u (i32.sub (i32.add (i32.load (i32.const 4)) (i32.load (i32.const 8))) (i32.const 1))))
      (global.set $mode (local.get $what))
      (if (i32.eq (local.get $what) (i32.const 97)) (then            ;; a: tables
        (loop $more
          (br_if $more (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
        (unreachable)))
      (if (i32.eq (local.get $what) (i32.const 98)) (then            ;; b: memory
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (unreachable)))
      (if (i32.eq (local.get $what) (i32.const 99)) (then            ;; c: zero
        (drop (i32.div_u (local.get $what) (i32.sub (local.get $what) (i32.const 99))))))
      (if (i32.eq (local.get $what) (i32.const 100)) (then           ;; d: no number
        (drop (i32.trunc_f64_s (f64.const nan)))))
      (if (i32.eq (local.get $what) (i32.const 101)) (then           ;; e: overflow
        (drop (i32.div_s (i32.const 0x80000000) (i32.sub (local.get $what) (i32.const 102))))))
      (if (i32.eq (local.get $what) (i32.const 102)) (then           ;; f: out of bounds
        (drop (i64.load offset=0xffffffff (i32.const -1)))))
      (if (i32.eq (local.get $what) (i32.const 103)) (then           ;; g: nothing there
        (call_indirect $table (type $taking-nothing) (i32.const 1))))
      (if (i32.eq (local.get $what) (i32.const 104)) (then           ;; h: no such place
        (call_indirect $table (type $taking-nothing) (i32.const -1))))
      (if (i32.eq (local.get $what) (i32.const 68)) (then            ;; D: another type
        (call_indirect $table (type $taking-nothing) (i32.const 0))))
      (if (i32.eq (local.get $what) (i32.const 105)) (then           ;; i: deep
        (drop (call $deep (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))))
      (if (i32.ge_u (i32.sub (local.get $what) (i32.const 108)) (i32.const 3))
        (then) (else (call $ask-again (local.get $request))))        ;; l, m, n
      (if (i32.ge_u (i32.sub (local.get $what) (i32.const 65)) (i32.const 2))
        (then) (else (call $ask-again (local.get $request))))        ;; A, B
      (if (i32.eq (local.get $what) (i32.const 111)) (then           ;; o: text from beyond memory
        (call $name-of (i32.const -8) (i32.const 64))))
      (if (i32.eq (local.get $what) (i32.const 112)) (then           ;; p: 8 MiB of text
        (drop (memory.grow (i32.const 128)))
        (memory.fill (i32.const 0) (i32.const 97) (i32.const 8388608))
        (call $name-of (i32.const 0) (i32.const 8388608))))
      (if (i32.eq (local.get $what) (i32.const 69)) (then            ;; E: 4 GiB of text
        (call $name-of (i32.const 0) (i32.const -1))))
      (if (i32.eq (local.get $what) (i32.const 113)) (then           ;; q: not aligned
        (call $name16-of (i32.const 257) (i32.const 2))))
      (if (i32.eq (local.get $what) (i32.const 114)) (then           ;; r: half a character
        (call $name16-of (i32.const 260) (i32.const 2))))
      (if (i32.eq (local.get $what) (i32.const 70)) (then            ;; F: twice 2 GiB
        (call $name16-of (i32.const 0) (i32.const 0x7fffffff))))
      (if (i32.eq (local.get $what) (i32.const 115)) (then           ;; s: no text
        (call $name-of (i32.const 256) (i32.const 3))))
      (if (i32.eq (local.get $what) (i32.const 116)) (then (call $drop-fields (i32.const 0))))             ;; t
      (if (i32.eq (local.get $what) (i32.const 117)) (then (call $drop-fields (i32.const -1))))            ;; u
      (if (i32.eq (local.get $what) (i32.const 118)) (then (call $drop-fields (local.get $request))))      ;; v
      (if (i32.eq (local.get $what) (i32.const 119)) (then (call $drop-outparam (local.get $out))))        ;; w
      (if (i32.eq (local.get $what) (i32.const 120)) (then           ;; x: hops
        (loop $again (block $one (block $two
          (br_table $again $one $two (i32.and (local.get $what) (i32.const 0)))) (br $again)) (br $again))))
      (if (i32.eq (local.get $what) (i32.const 121)) (then           ;; y: tables by the bulk
        (drop (table.grow $table (ref.null func) (i32.const 90000)))
        (loop $again
          (table.fill $table (i32.const 0) (ref.null func) (i32.const 90000))
          (table.copy $table $table (i32.const 1) (i32.const 0) (i32.const 80000))
          (br $again))))
      (if (i32.eq (local.get $what) (i32.const 122)) (then           ;; z: growing by what nobody gets
        (loop $again (drop (memory.grow (i32.const 65000))) (br $again))))
      (if (i32.le_u (i32.sub (local.get $what) (i32.const 48)) (i32.const 1)) (then                        ;; 0, 1
        (call $drop-mine (call $new-mine (i32.const 7)))))
      (if (i32.eq (local.get $what) (i32.const 50)) (then            ;; 2: dropped twice
        (local.set $out (call $new-mine (i32.const 7)))
        (call $drop-mine (local.get $out))
        (call $drop-mine (local.get $out))))
      (if (i32.eq (local.get $what) (i32.const 51)) (then            ;; 3: resources of its own, never dropped
        (loop $again (drop (call $new-mine (i32.const 7))) (br $again))))))

  (core instance $main (instantiate $main
    (with "behind" (instance $behind))
    (with "host" (instance
      (export "new-fields" (func $new-fields))
      (export "new-mine" (func $new-mine))
      (export "drop-mine" (func $drop-mine))
      (export "drop-fields" (func $drop-fields))
      (export "drop-outparam" (func $drop-outparam))
      (export "path" (func $path))
      (export "has" (func $has))
      (export "has16" (func $has16))))))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $main "handle") (post-return (core func $behind "after"))))
  (instance (export "wasi:http/incoming-handler@0.2.12") (export "handle" (func $handle))))
