//! What devices write, and what becomes of it.

use srcos_lanes::error::WriteError;
use srcos_lanes::lane::LaneId;

use super::World;
use crate::invariants::{Checked, Violation, converged};
use crate::workload::Work;

impl World {
    /// A device writes a batch.
    pub(super) fn write(&mut self, number: usize, work: Work) -> Checked {
        let node = &self.nodes[number];
        // Someone with a store that does not know its mesh pairs before working on.
        if node.homeless || node.frozen_until_ms > self.now_ms() {
            return Ok(());
        }
        let Work { lane, ops } = &work;
        if node.running.is_some() {
            self.workload.note(&work);
        }
        let mut refused = None;
        let tried = self.call(number, |running, now| {
            match running.engine.write(&mut running.store, now, *lane, ops) {
                Ok(outcomes) => Ok(outcomes),
                Err(WriteError::Store(error)) => Err(error),
                Err(error) => {
                    refused = Some(error);
                    Ok(Vec::new())
                }
            }
        });
        match (tried, refused) {
            (None, _) => Ok(()),
            (Some(Err(error)), _) => self.store_failed(number, &error),
            (Some(Ok(_)), Some(error)) => self.refused(number, *lane, &error),
            (Some(Ok(outcomes)), None) => {
                let ids: Vec<_> = ops.iter().map(|op| op.id.as_str()).collect();
                self.line("write", format!("n{number} {lane} {ids:?}"));
                self.durable.on_write(*lane, ops);
                self.written.entry(number).or_default().push((*lane, ops.clone(), outcomes));
                self.settle_soon(number);
                Ok(())
            }
        }
    }

    /// A write was refused: right for some, a fault of the node for others.
    fn refused(&mut self, number: usize, lane: LaneId, error: &WriteError) -> Checked {
        let expected = matches!(
            error,
            WriteError::NotFound { .. }
                | WriteError::AppendOnly { .. }
                | WriteError::ClassLoosened { .. }
        );
        let disputed =
            matches!(error, WriteError::Quarantined { .. } | WriteError::Document { .. })
                && self.excuses.may_be_incomplete(lane);
        self.line("refused", format!("n{number} {lane} {error}"));
        // A refused batch may have opened a turn.
        self.settle_soon(number);
        if expected || disputed || self.nodes[number].breaks_rules() {
            return Ok(());
        }
        let what = format!("n{number} cannot write to {lane}: {error}");
        Err(Violation { invariant: converged::NAME, what })
    }
}
