// dies of E0308
use cofferdam_gateway::respond::{Reply, respond};

pub fn unrecorded(reply: Reply) {
    let _ = respond(reply);
}
