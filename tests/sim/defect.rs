//! Planted defects: what a broken Skein would do, done by the world in its stead, to see the checks go red.
//!
//! Frames on their way between nodes and mail on its way between workers are dropped, doubled or forged. The product has
//! no seam for this; to a subscriber it makes no difference who was wrong.

use std::collections::BTreeMap;

use skein::backplane::envelope::{self, Frame, Kind, Phase};
use skein::base::rng::Rng;

use crate::net::{LaneId, Side};
use crate::plan::MILLI;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// Between nodes: the acknowledgement comes before the peer has heard of the interest.
    AnswerBeforeBarrier,
    /// No side counts a gap.
    ForgetGap,
    /// No GAP frame arrives.
    LoseGapFrames,
    /// A frame of publications arrives twice.
    DeliverTwice,
    /// A frame of publications vanishes although its lane lives.
    LosePublications,
    /// A publication goes to a node that did not ask for it.
    SendUnasked,
    /// Between workers: a publication is delivered twice.
    MailTwice,
    /// A publication between workers vanishes.
    LoseMail,
    /// A confirmation between workers vanishes.
    LoseControlMail,
    /// Between workers: the confirmation comes before the home worker was asked.
    ConfirmBeforeAsk,
}

/// How late the interest is that was acknowledged too early.
const LATE: u64 = 60 * MILLI;

/// What becomes of one frame.
#[derive(Default)]
pub struct Fate {
    /// Each with what it is delayed by.
    pub sent: Vec<(u64, Vec<u8>)>,
    /// On the other side's control stream.
    pub answered: Option<Vec<u8>>,
}

/// Sequence numbers that were acknowledged in a peer's name: by lane, acknowledging side and flow.
#[derive(Default)]
pub struct Forger {
    acknowledged: BTreeMap<(LaneId, Side, u16, u16), u64>,
}

impl Forger {
    pub fn fate(&mut self, defect: Defect, lane: LaneId, side: Side, frame: Vec<u8>, rng: &mut Rng) -> Fate {
        let mut fate = Fate::default();
        let Ok((header, read)) = envelope::decode(&frame) else {
            // HELLO.
            fate.sent.push((0, frame));
            return fate;
        };
        match (defect, read) {
            (Defect::AnswerBeforeBarrier, Frame::Interest { sequence, phase: Phase::Delta, .. }) => {
                let mut answer = Vec::new();
                envelope::encode_interest_ack(header.to, header.from, sequence, &mut answer);
                self.acknowledged.insert((lane, 1 - side, header.to, header.from), sequence);
                fate.answered = Some(answer);
                fate.sent.push((LATE, frame));
            }
            (Defect::AnswerBeforeBarrier, Frame::InterestAck { sequence }) => {
                let forged = self.acknowledged.get(&(lane, side, header.from, header.to)).copied().unwrap_or(0);
                if sequence >= forged {
                    fate.sent.push((0, frame));
                }
            }
            (Defect::LoseGapFrames, Frame::Gap { .. }) => {}
            (Defect::LosePublications, Frame::Publications(_)) if rng.chance(1, 10) => {}
            (Defect::DeliverTwice, Frame::Publications(_)) if rng.chance(1, 10) => {
                fate.sent.push((0, frame.clone()));
                fate.sent.push((0, frame));
            }
            (Defect::SendUnasked, Frame::Interest { sequence, phase, add, remove })
                if header.kind == Kind::Interest =>
            {
                // The peer believes that all short hashes are wanted.
                let add: Vec<u64> = add.iter().chain(0..256).collect();
                let remove: Vec<u64> = remove.iter().collect();
                let mut forged = Vec::new();
                let interest = envelope::Interest { sequence, phase, add: &add, remove: &remove };
                envelope::encode_interest(header.from, header.to, &interest, &mut forged);
                fate.sent.push((0, forged));
            }
            _ => fate.sent.push((0, frame)),
        }
        fate
    }
}
