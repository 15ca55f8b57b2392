//! What language runtimes import and never get: terminals, files, sockets, names.
//!
//! A guest reaches these only through a handle, and the functions that would hand out the first one are here and say
//! no. The methods behind (upstream's) can therefore not be called. Must never create a handle.

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::cli::{
    terminal_input, terminal_output, terminal_stderr, terminal_stdin, terminal_stdout,
};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::bindings::sockets::{
    instance_network, ip_name_lookup, network, tcp, tcp_create_socket, udp, udp_create_socket,
};
use wasmtime_wasi::p2::{DynPollable, SocketError, SocketResult};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtx, WasiSocketsCtxView};

use super::Host;

/// The file system nobody can get a handle into.
pub(super) type NoFiles = WasiFilesystemCtx;
/// The network nobody can get a handle into; upstream's default refuses everything as well.
pub(super) type NoSockets = WasiSocketsCtx;

/// Says no.
struct Denied<'a> {
    table: &'a mut ResourceTable,
}

struct HasDenied;

impl HasData for HasDenied {
    type Data<'a> = Denied<'a>;
}

fn denied(host: &mut Host) -> Denied<'_> {
    Denied { table: &mut host.table }
}

/// Links terminals that are not there.
pub(super) fn link_terminal(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    terminal_input::add_to_linker::<Host, HasDenied>(linker, denied)?;
    terminal_output::add_to_linker::<Host, HasDenied>(linker, denied)?;
    terminal_stdin::add_to_linker::<Host, HasDenied>(linker, denied)?;
    terminal_stdout::add_to_linker::<Host, HasDenied>(linker, denied)?;
    terminal_stderr::add_to_linker::<Host, HasDenied>(linker, denied)
}

/// Links a file system without a directory to start from.
pub(super) fn link_filesystem(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<Host, HasDenied>(linker, denied)?;
    types::add_to_linker::<Host, WasiFilesystem>(linker, |host| WasiFilesystemCtxView {
        ctx: &mut host.files,
        table: &mut host.table,
    })
}

/// Links a network on which no socket can be made and no name looked up.
pub(super) fn link_sockets(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    fn behind(host: &mut Host) -> WasiSocketsCtxView<'_> {
        WasiSocketsCtxView { ctx: &mut host.sockets, table: &mut host.table }
    }
    tcp_create_socket::add_to_linker::<Host, HasDenied>(linker, denied)?;
    udp_create_socket::add_to_linker::<Host, HasDenied>(linker, denied)?;
    ip_name_lookup::add_to_linker::<Host, HasDenied>(linker, denied)?;
    instance_network::add_to_linker::<Host, WasiSockets>(linker, behind)?;
    network::add_to_linker::<Host, HasDenied>(linker, &network::LinkOptions::default(), denied)?;
    tcp::add_to_linker::<Host, WasiSockets>(linker, behind)?;
    udp::add_to_linker::<Host, WasiSockets>(linker, behind)
}

impl preopens::Host for Denied<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<types::Descriptor>, String)>> {
        Ok(Vec::new())
    }
}

impl network::Host for Denied<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<network::ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, _: Resource<wasmtime::Error>) -> wasmtime::Result<Option<network::ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for Denied<'_> {
    fn drop(&mut self, network: Resource<network::Network>) -> wasmtime::Result<()> {
        self.table.delete(network)?;
        Ok(())
    }
}

impl tcp_create_socket::Host for Denied<'_> {
    fn create_tcp_socket(&mut self, _: network::IpAddressFamily) -> SocketResult<Resource<tcp::TcpSocket>> {
        Err(network::ErrorCode::AccessDenied.into())
    }
}

impl udp_create_socket::Host for Denied<'_> {
    async fn create_udp_socket(&mut self, _: network::IpAddressFamily) -> SocketResult<Resource<udp::UdpSocket>> {
        Err(network::ErrorCode::AccessDenied.into())
    }
}

impl ip_name_lookup::Host for Denied<'_> {
    fn resolve_addresses(
        &mut self,
        _: Resource<network::Network>,
        _: String,
    ) -> SocketResult<Resource<ip_name_lookup::ResolveAddressStream>> {
        Err(network::ErrorCode::AccessDenied.into())
    }
}

impl ip_name_lookup::HostResolveAddressStream for Denied<'_> {
    fn resolve_next_address(
        &mut self,
        _: Resource<ip_name_lookup::ResolveAddressStream>,
    ) -> SocketResult<Option<network::IpAddress>> {
        Err(network::ErrorCode::AccessDenied.into())
    }

    fn subscribe(
        &mut self,
        _: Resource<ip_name_lookup::ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        Err(wasmtime::format_err!("no such stream was ever made"))
    }

    fn drop(&mut self, stream: Resource<ip_name_lookup::ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}

impl terminal_input::Host for Denied<'_> {}
impl terminal_output::Host for Denied<'_> {}

impl terminal_input::HostTerminalInput for Denied<'_> {
    fn drop(&mut self, terminal: Resource<terminal_input::TerminalInput>) -> wasmtime::Result<()> {
        self.table.delete(terminal)?;
        Ok(())
    }
}

impl terminal_output::HostTerminalOutput for Denied<'_> {
    fn drop(&mut self, terminal: Resource<terminal_output::TerminalOutput>) -> wasmtime::Result<()> {
        self.table.delete(terminal)?;
        Ok(())
    }
}

impl terminal_stdin::Host for Denied<'_> {
    fn get_terminal_stdin(&mut self) -> wasmtime::Result<Option<Resource<terminal_stdin::TerminalInput>>> {
        Ok(None)
    }
}

impl terminal_stdout::Host for Denied<'_> {
    fn get_terminal_stdout(&mut self) -> wasmtime::Result<Option<Resource<terminal_stdout::TerminalOutput>>> {
        Ok(None)
    }
}

impl terminal_stderr::Host for Denied<'_> {
    fn get_terminal_stderr(&mut self) -> wasmtime::Result<Option<Resource<terminal_stderr::TerminalOutput>>> {
        Ok(None)
    }
}
