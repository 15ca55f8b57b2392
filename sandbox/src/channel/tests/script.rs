//! The channel against cells that say anything in any order: bounded, seeded, the same every time.
//!
//! Owns the scripts. Whatever a cell says, the channel takes it or is to be closed, and holds no more than it granted.

use cofferdam_model::random::Random;

use super::*;

/// Scripts, and frames of each.
const SCRIPTS: u64 = 3_000;
const FRAMES: usize = 48;
/// Calls opened before a script begins.
const CALLS: u32 = 3;

struct Dice(SeededRandom);

impl Dice {
    fn below(&self, bound: u32) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_be_bytes(bytes) % bound
    }

    fn bytes(&self, most: u32) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most + 1) as usize];
        self.0.fill(&mut bytes);
        bytes
    }
}

/// One frame: of any kind, mostly of those a cell may send; for a call that is there or one that is not; whole or bent.
fn frame(dice: &Dice, out: &mut Vec<u8>) {
    let (call, end, from) = (dice.below(CALLS + 2), dice.below(4) == 0, out.len());
    match dice.below(12) {
        0 | 1 => response(out, end, call),
        2..=5 => data(out, end, call, &dice.bytes(MAX_PAYLOAD as u32)),
        6 => frame::put_credit(out, call, dice.below(70_000)).unwrap(),
        7 => frame::put(out, Kind::Log, end, call, &[&[1], dice.bytes(600).as_slice()].concat()).unwrap(),
        8 => done(out, call, [Ending::Answered, Ending::Trapped, Ending::StackExhausted][dice.below(3) as usize]),
        9 => frame::put(out, Kind::FetchData, end, call, &dice.bytes(600)).unwrap(),
        10 => frame::put_fetch_credit(out, call, dice.below(70_000)).unwrap(),
        _ => frame::put(out, Kind::FetchCancel, end, call, &[]).unwrap(),
    }
    if dice.below(24) == 0 {
        let at = from + dice.below((out.len() - from) as u32) as usize;
        out[at] ^= 1 << dice.below(8);
    }
}

/// Plays one script; whether the channel took all of it.
fn play(dice: &Dice) -> bool {
    let rig = rig();
    let limits = FunctionLimits { response_bytes: 1 << 20, ..FunctionLimits::default() };
    let _handles: Vec<Handle> = (0..CALLS).map(|_| rig.open_with(dice.below(2) == 0, limits.clone())).collect();
    let (mut buffer, mut frames, mut after) = (BytesMut::new(), Vec::new(), Aftermath::default());
    for _ in 0..FRAMES {
        let mut bytes = Vec::new();
        frame(dice, &mut bytes);
        let cut = dice.below(bytes.len() as u32 + 1) as usize;
        for piece in [&bytes[..cut], &bytes[cut..]] {
            buffer.extend_from_slice(piece);
            let parsed = wire::parse(&mut buffer, &mut frames).map_err(|violation| (0, violation));
            let heard = rig.channel.hear(&mut frames, &mut after).and(parsed);
            rig.channel.settle(&mut after);
            let state = rig.channel.lock();
            for (number, call) in &state.calls {
                assert!(call.held() <= INITIAL_CREDIT as usize, "call {number} holds {} bytes", call.held());
            }
            assert!(state.out.len() <= CROWDED && state.calls.len() <= CALLS as usize);
            drop(state);
            if heard.is_err() {
                rig.channel.close(Closed::Gone);
                return false;
            }
        }
        assert!(buffer.len() <= HEADER_BYTES + MAX_PAYLOAD, "more than one frame is held back");
    }
    true
}

#[tokio::test]
async fn whatever_a_cell_says_the_channel_holds_no_more_than_it_granted() {
    let whole = (0..SCRIPTS).filter(|seed| play(&Dice(SeededRandom::new(*seed)))).count();
    assert!(whole < SCRIPTS as usize, "no script was refused");
}
