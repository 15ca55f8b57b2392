//! A node with two tenants and their functions deployed, as most tests want it.
//!
//! Owns the set-up, made with the commands a user would type. Must never reach into the node's files.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::client::{Broken, Client};
use crate::guests::{binary, committed, root};
use crate::node::{Node, Site};

/// Raises what would otherwise stop a test that calls as fast as it can.
pub const LIMITS: &str = r#"
[limits]
per_source = { per_second = 1000000, burst = 1000000 }
per_principal = { per_second = 1000000, burst = 1000000 }
per_tenant = { per_second = 1000000, burst = 1000000 }
connections_per_source = 4096
"#;

/// A served site.
pub struct Scene {
    /// Its directory.
    pub site: Site,
    /// Its process.
    pub node: Node,
}

impl Scene {
    /// Two tenants, `acme` and `globex`, deployed.
    pub fn new() -> Result<Self, Broken> {
        Self::with_config(LIMITS)
    }

    /// The same with this added to the node's configuration, and no limit raised.
    pub fn with_config(config: &str) -> Result<Self, Broken> {
        Self::with_settings("", config)
    }

    /// The same with settings at the top of the configuration as well, before its first table.
    pub fn with_settings(top: &str, config: &str) -> Result<Self, Broken> {
        let scene = Self::bare_configured(top, config)?;
        for tenant in ["acme", "globex"] {
            scene.node.run(&scene.site, &["tenant", "create", tenant])?;
            let manifest = root().join(format!("tests/scene/{tenant}.toml"));
            scene.node.run(&scene.site, &["apply", &manifest.display().to_string()])?;
        }
        Ok(scene)
    }

    /// Two tenants, each with a function at `/hello` of a host of its own: `acme.test` and `globex.test`.
    pub fn with_doors() -> Result<Self, Broken> {
        let site = Site::init_for(&["acme.test", "globex.test"])?;
        let node = Node::start(&site)?;
        let scene = Self { site, node };
        for tenant in ["acme", "globex"] {
            scene.node.run(&scene.site, &["tenant", "create", tenant])?;
            let manifest = scene.site.file(
                &format!("{tenant}.toml"),
                &format!(
                    "manifest = 1\n[app]\nname = \"doors\"\ntenant = \"{tenant}\"\n[functions.hello]\n\
                     source = {{ path = \"{}\" }}\n[[routes]]\nhost = \"{tenant}.test\"\npath = \"/hello\"\n\
                     function = \"hello\"\n",
                    committed("hello-c/hello-c.wasm").display()
                ),
            )?;
            scene.node.run(&scene.site, &["apply", &manifest.display().to_string()])?;
        }
        Ok(scene)
    }

    /// A node on which nothing exists yet.
    pub fn bare() -> Result<Self, Broken> {
        Self::bare_with("")
    }

    /// The same with further lines in the table of limits.
    pub fn bare_with(limits: &str) -> Result<Self, Broken> {
        Self::bare_configured("", &format!("{LIMITS}{limits}\n"))
    }

    fn bare_configured(top: &str, more: &str) -> Result<Self, Broken> {
        let site = Site::init()?;
        let config = site.data().join("cofferdam.toml");
        let was = std::fs::read_to_string(&config).unwrap_or_default();
        std::fs::write(&config, format!("{top}\n{was}\n{more}"))?;
        let node = Node::start(&site)?;
        Ok(Self { site, node })
    }

    /// Sets a secret the way a user does: by standard input.
    pub fn set_secret(&self, function: &str, name: &str, value: &str) -> Result<(), Broken> {
        let mut child = Command::new(binary("cofferdam"))
            .args(["secret", "set", function, name, "--url", &self.node.url(), "--data"])
            .arg(self.site.data())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        child.stdin.take().ok_or("no stdin")?.write_all(value.as_bytes())?;
        if child.wait()?.success() { Ok(()) } else { Err("`secret set` failed".into()) }
    }

    /// A connection that calls as a subject with one role.
    pub async fn caller(&self, tenant: &str, subject: &str, role: &str) -> Result<Client, Broken> {
        let token = self.site.token(tenant, subject, role)?;
        Ok(self.node.client().await?.with(&token))
    }

    /// A connection that calls as an invoker of acme.
    pub async fn alice(&self) -> Result<Client, Broken> {
        self.caller("acme", "alice", "invoker").await
    }
}
