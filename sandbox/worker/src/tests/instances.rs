//! Instances made and dropped one after the other, here and the way `wasmtime serve` makes them.
//!
//! Owns both loops, in one process and one run, on the same component. `make bench` runs them for long and shows what
//! they take; must never judge that, since figures depend on the machine. As a test they show that slots come back.

use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use cofferdam_model::clock::SystemClock;
use cofferdam_model::limits::FunctionLimits;
use cofferdam_model::random::OsRandom;
use cofferdam_model::secret::Env;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, PoolingAllocationConfig, Store, StoreLimits};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::gateway::{HELLO, WHOAMI, artifact_file};
use crate::call;
use crate::capability::Source;
use crate::channel::Outbox;
use crate::engine;
use crate::state::CallState;
use crate::sys::Mapping;

/// Instances of a run; a bench wants more. Far more than the slots there are.
const ROUNDS: u32 = 300;
const BENCH_ROUNDS: u32 = 20_000;
/// Runs of each kind, in turns; the best of each counts, since whatever else the machine does only adds.
const RUNS: usize = 5;

/// The store of `wasmtime serve`: everything a command has, and HTTP.
struct Serving {
    table: ResourceTable,
    ctx: WasiCtx,
    http: WasiHttpCtx,
    hooks: NoHooks,
    limits: StoreLimits,
}

struct NoHooks;

impl WasiHttpHooks for NoHooks {
    fn send_request(
        &mut self,
        _: http::Request<wasmtime_wasi_http::WasiBody>,
        _: Option<wasmtime_wasi_http::RequestOptions>,
        _: Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
    ) -> Box<
        dyn Future<
                Output = Result<
                    (
                        http::Response<wasmtime_wasi_http::WasiBody>,
                        Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
                    ),
                    wasmtime_wasi_http::Error,
                >,
            > + Send,
    > {
        Box::new(std::future::ready(Err(wasmtime_wasi_http::Error::HttpRequestDenied)))
    }
}

impl WasiView for Serving {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.ctx, table: &mut self.table }
    }
}

impl WasiHttpView for Serving {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

/// As its `new_store` does, for a function without arguments.
fn serving_store(engine: &Engine, request: u32) -> Store<Serving> {
    let mut builder = WasiCtxBuilder::new();
    builder.env("INSTANCE_ID", request.to_string());
    let host = Serving {
        table: ResourceTable::new(),
        ctx: builder.build(),
        http: WasiHttpCtx::new(),
        hooks: NoHooks,
        limits: StoreLimits::default(),
    };
    let mut store = Store::new(engine, host);
    store.limiter(|host| &mut host.limits);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

fn serving(component: &Path) -> ProxyPre<Serving> {
    let mut pool = PoolingAllocationConfig::new();
    pool.linear_memory_keep_resident(2 * 1024 * 1024);
    let mut config = Config::new();
    config.allocation_strategy(pool).epoch_interruption(true);
    let engine = Engine::new(&config).unwrap();
    let component = Component::from_file(&engine, component).unwrap();
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).unwrap();
    ProxyPre::new(linker.instantiate_pre(&component).unwrap()).unwrap()
}

async fn theirs(proxy: &ProxyPre<Serving>, rounds: u32) -> f64 {
    let begun = now();
    for round in 0..rounds {
        let mut store = serving_store(proxy.engine(), round);
        proxy.instantiate_async(&mut store).await.unwrap();
        drop(store);
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
}

async fn ours(loaded: &engine::Loaded, source: &Source, limits: &Arc<FunctionLimits>, rounds: u32) -> f64 {
    let begun = now();
    for round in 0..rounds {
        let state = Arc::new(CallState::new(round, limits.clone(), true));
        let mut store = call::store(loaded.proxy.engine(), source, state.clone());
        let mut made = pin!(loaded.proxy.instantiate_async(&mut store));
        let made = poll_fn(|cx| loaded.ticker.awake(|| state.meter.measure(|| made.as_mut().poll(cx))));
        made.await.unwrap();
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn slots_come_back_with_every_instance_that_is_dropped() {
    let rounds = if std::env::var_os("COFFERDAM_BENCH").is_some() { BENCH_ROUNDS } else { ROUNDS };
    println!("| create and drop an instance | here us | as `wasmtime serve` us | ratio |\n|---|---|---|---|");
    for guest in [HELLO, WHOAMI] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(guest);
        let proxy = serving(&path);
        let (file, length) = artifact_file(guest);
        let opened = std::os::fd::OwnedFd::from(std::fs::File::open(file.path()).unwrap());
        let mapping = Mapping::of(&opened, length).unwrap();
        let limits = Arc::new(FunctionLimits { cells: 1, ..FunctionLimits::default() });
        let loaded = engine::load(mapping, &limits, || Ok(())).unwrap();
        let clock = Arc::new(SystemClock::default());
        let stream = Arc::new(tokio::net::UnixStream::pair().unwrap().0);
        let outbox = Arc::new(Outbox::new(stream, clock.clone()));
        let source = Source::new(Env::new(), clock, Arc::new(OsRandom), outbox);
        let (mut here, mut there) = (f64::MAX, f64::MAX);
        for _ in 0..RUNS {
            here = here.min(ours(&loaded, &source, &limits, rounds).await);
            there = there.min(theirs(&proxy, rounds).await);
        }
        assert!(rounds > limits.concurrency, "a slot that is lost is not missed");
        println!("| {guest} | {here:.2} | {there:.2} | {:.2} |", here / there);
    }
}
