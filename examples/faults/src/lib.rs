//! A function that misbehaves on request: the last segment of the path names the fault, `?n=` its size.
//! Must never be deployed for anything but tests; each fault must stay as blunt as its name.
mod host;
mod machine;
mod reply;
mod stream;

use reply::Reply;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Faults;
wasip2::http::proxy::export!(Faults);

/// One call: what was asked and the one chance to answer it.
struct Call {
    request: IncomingRequest,
    reply: Reply,
    n: Option<u64>,
}

impl Call {
    fn size(&self, default: u64) -> u64 {
        self.n.unwrap_or(default)
    }
}

impl Guest for Faults {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let n = query.split('&').find_map(|pair| pair.strip_prefix("n=")?.parse().ok());
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let call = Call { request, reply: Reply::new(out), n };
        match name.as_str() {
            "spin" => machine::spin(),
            "eat" => machine::eat(),
            "trap" => machine::trap(),
            "die" => machine::die(),
            "count" => machine::count(call),
            "time" => machine::time(call),
            "random" => machine::random(call),
            "busy" => machine::busy(),
            "glut" => machine::glut(call),
            "hoard" => machine::hoard(call),
            "echo" => stream::echo(call),
            "sink" => stream::sink(call),
            "slow" => stream::slow(call),
            "sleep" => stream::sleep(call),
            "big" => stream::big(call),
            "cut" => stream::cut(call),
            "lie" => stream::lie(call),
            "after" => stream::after(call),
            "noanswer" => drop(call),
            "log" => host::log(call),
            "headers" => host::headers(call),
            "many" => host::many(call),
            "status" => host::status(call),
            "env" => host::env(call),
            "out" => host::out(call),
            "net" => host::net(call),
            "fs" => host::fs(call),
            _ => call.reply.text(404, "no such fault\n"),
        }
    }
}
