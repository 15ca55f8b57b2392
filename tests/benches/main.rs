//! `make bench`: what a call costs with everything on, measured on real nodes over real TLS.
//!
//! Owns the order and the tables of the README and of closing notes. Ratios of one run on one machine are what counts.
//! `make bench ONLY=cells` measures one part: `load`, `tokens`, `cells`, `stops`, `neighbour`, `decide`, `unseal`,
//! `peer`, `proofs` or `audit`.

mod audit;
mod cells;
mod decide;
mod load;
mod neighbour;
mod noise;
mod peer;
mod proofs;
mod stops;
mod tenants;
mod times;
mod tokens;
mod unseal;

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some(noise::ROLE) {
        return noise::run().await.expect("a noise");
    }
    times::stand_aside();
    // Cargo adds arguments of its own, which all begin with a dash.
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| only.is_empty() || only.iter().any(|asked| asked == part);
    if wanted("load") {
        load::run().await;
    }
    if wanted("tokens") {
        tokens::run().await;
    }
    if wanted("cells") {
        cells::run().await;
    }
    if wanted("stops") {
        stops::run().await;
    }
    if wanted("neighbour") {
        neighbour::run().await;
    }
    if wanted("decide") {
        decide::run().await;
    }
    if wanted("unseal") {
        unseal::run();
    }
    if wanted("proofs") {
        proofs::run();
    }
    if wanted("peer") {
        peer::run().await;
    }
    if wanted("audit") {
        audit::run().await;
    }
}
