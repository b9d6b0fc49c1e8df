//! What can go wrong in a round.

use std::fmt;

/// One disturbance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// SIGKILL a worker and start another.
    KillWorker,
    /// SIGSTOP a worker until its partitions have moved and their events are stored; then wake it.
    Zombie,
    /// SIGKILL the broker and start it on its data.
    CrashBroker,
    /// Stop the broker the orderly way and start it again.
    RestartBroker,
    /// Start one more worker, which takes partitions over.
    AddWorker,
    /// Stop a worker the orderly way.
    RemoveWorker,
    /// Store calls fail, hang, or succeed without telling.
    BreakStore,
    /// Kill a worker while the store is failing.
    KillWhileStoreFails,
}

impl Action {
    pub(crate) const ALL: [Action; 8] = [
        Action::KillWorker,
        Action::Zombie,
        Action::CrashBroker,
        Action::RestartBroker,
        Action::AddWorker,
        Action::RemoveWorker,
        Action::BreakStore,
        Action::KillWhileStoreFails,
    ];

    /// The actions of a run: each once in random order, then at random.
    pub(crate) fn plan(rounds: usize, random: &mut fastrand::Rng) -> Vec<Action> {
        let mut plan = Self::ALL.to_vec();
        random.shuffle(&mut plan);
        while plan.len() < rounds {
            plan.push(Self::ALL[random.usize(..Self::ALL.len())]);
        }
        plan.truncate(rounds);
        plan
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::KillWorker => "kill worker",
            Action::Zombie => "zombie",
            Action::CrashBroker => "crash broker",
            Action::RestartBroker => "restart broker",
            Action::AddWorker => "add worker",
            Action::RemoveWorker => "remove worker",
            Action::BreakStore => "break store",
            Action::KillWhileStoreFails => "kill while store fails",
        })
    }
}
