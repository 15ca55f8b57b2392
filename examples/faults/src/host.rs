//! Faults against what is around the guest: logs, headers, environment, network, files.
//! Must never answer the value of a variable or the content of a file, only what was allowed.
use std::fmt::{Debug, Write as _};
use std::io::Write as _;

use wasip2::filesystem::preopens::get_directories;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, OutgoingRequest, Scheme};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{IpAddressFamily::Ipv4, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::Call;

/// Writes `n` lines of 1 KiB to the log, 65536 (64 MiB) unless told.
pub fn log(call: Call) {
    let line = [b'l'; 1023];
    let mut stdout = std::io::stdout();
    let mut lines = 0_u64;
    while lines < call.size(65536) && stdout.write_all(&line).is_ok() && stdout.write_all(b"\n").is_ok() {
        lines += 1;
    }
    call.reply.text(200, &format!("{lines}\n"));
}

/// Tries headers that are not for a function to set, and reports which of them were taken.
pub fn headers(call: Call) {
    let headers = Fields::new();
    let mut report = String::new();
    for (name, value) in [
        ("connection", "forged"),
        ("keep-alive", "timeout=600, forged"),
        ("transfer-encoding", "forged, chunked"),
        ("upgrade", "forged/1"),
        ("te", "forged"),
        ("trailer", "x-forged"),
        ("proxy-authenticate", "forged"),
        ("proxy-connection", "forged"),
        ("x-cofferdam-principal", "forged"),
        ("x-cofferdam-tenant", "forged"),
        ("x-cofferdam-request-id", "forged"),
        ("x-request-id", "forged"),
        ("cofferdam-error-source", "forged"),
        ("server", "forged"),
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("strict-transport-security", "max-age=0"),
        ("set-cookie", "first=1; Path=/"),
        ("set-cookie", "second=2; Path=/"),
        ("x-split", "a\r\nx-injected: forged"),
        ("x-fine", "yes"),
    ] {
        let outcome = headers.append(name, value.as_bytes());
        let _ = writeln!(report, "{name}: {outcome:?}");
    }
    let mut body = call.reply.begin(200, headers);
    body.send(report.as_bytes());
    body.finish();
}

/// Sets `n` header fields of about 100 bytes, 10000 unless told, or as many as are taken.
pub fn many(call: Call) {
    let headers = Fields::new();
    let value = [b'v'; 90];
    let taken =
        (0..call.size(10_000)).take_while(|number| headers.append(&format!("x-{number}"), &value).is_ok()).count();
    let mut body = call.reply.begin(200, headers);
    body.send(format!("{taken}\n").as_bytes());
    body.finish();
}

/// Answers with status `n`, 503 unless told.
pub fn status(call: Call) {
    let status = u16::try_from(call.size(503)).unwrap_or(503);
    call.reply.text(status, "as told\n");
}

pub fn env(call: Call) {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned() + "\n");
    let report: String = names.collect();
    call.reply.text(200, &report);
}

pub fn out(call: Call) {
    let request = OutgoingRequest::new(Fields::new());
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some("169.254.169.254"));
    let _ = request.set_path_with_query(Some("/latest/meta-data/"));
    let outcome = match outgoing_handler::handle(request, None) {
        Err(error) => format!("{error:?}"),
        Ok(answer) => {
            answer.subscribe().block();
            match answer.get() {
                Some(Ok(Err(error))) => format!("{error:?}"),
                Some(Ok(Ok(response))) => format!("answered {}", response.status()),
                other => format!("no answer: {}", other.is_some()),
            }
        }
    };
    call.reply.text(200, &(outcome + "\n"));
}

pub fn net(call: Call) {
    let network = instance_network();
    let home = Ipv4SocketAddress { address: (127, 0, 0, 1), port: 22 };
    let connect = || create_tcp_socket(Ipv4)?.start_connect(&network, IpSocketAddress::Ipv4(home));
    let listen = || create_tcp_socket(Ipv4)?.start_bind(&network, IpSocketAddress::Ipv4(home));
    let datagram = || create_udp_socket(Ipv4)?.start_bind(&network, IpSocketAddress::Ipv4(home));
    let mut report = String::new();
    tell(&mut report, "tcp connect", connect());
    tell(&mut report, "tcp listen", listen());
    tell(&mut report, "udp bind", datagram());
    tell(&mut report, "resolve a name", resolve_addresses(&network, "localhost"));
    call.reply.text(200, &report);
}

pub fn fs(call: Call) {
    let mut report = format!("preopens: {}\n", get_directories().len());
    let mut tell_io = |what, outcome: std::io::Result<()>| tell(&mut report, what, outcome.map_err(|it| it.kind()));
    tell_io("read /etc/passwd", std::fs::read("/etc/passwd").map(drop));
    tell_io("read /proc/self/maps", std::fs::read("/proc/self/maps").map(drop));
    tell_io("write /tmp/faults", std::fs::write("/tmp/faults", "x"));
    tell_io("list .", std::fs::read_dir(".").map(drop));
    call.reply.text(200, &report);
}

fn tell<T, E: Debug>(report: &mut String, what: &str, outcome: Result<T, E>) {
    let _ = match outcome {
        Ok(_) => writeln!(report, "{what}: allowed"),
        Err(error) => writeln!(report, "{what}: refused: {error:?}"),
    };
}
