//! Ways to break the protocol on purpose, to see whether those who watch over it notice.
//!
//! Each is one place in the code that does the wrong thing while its mutation is on. That can only be in builds with the feature
//! `mutations`, which tests ask for and no server has, and only in the thread that wanted it: everywhere else [`is_on`] is the
//! constant `false`.
//!
//! **Not here**: who notices (the simulator).

macro_rules! mutations {
    ($($name:ident,)*) => {
        /// What is wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Mutation {
            $($name,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Mutation] = &[$(Mutation::$name),*];
        }
    };
}

mutations! {
    ProposalsAreAcknowledgedBeforeTheyAreDurable,
    HistoryIsAcknowledgedBeforeItIsDurable,
    CommitsNeedNoQuorum,
    EpochsAreEstablishedWithoutAQuorum,
    EpochsAreUsedAgain,
    PromisesAreForgotten,
    TakingOverIsForgotten,
    TruncationIsSkipped,
    EveryoneGetsADiff,
    HistoriesAreIgnored,
    VotesIgnoreHistories,
    AcknowledgementsOutliveTheirLink,
    CommitsAreAppliedBeforeTheyAreDurable,
    ClientsFromTheFutureAreServed,
    EventsFollowAnswers,
    SessionsHaveManyOwners,
    ReadsOvertakeWrites,
    LostHistoriesVote,
    SyncsAreAnsweredAtOnce,
    NobodyGoesOn,
    CoresReadBeforeTheyAreTold,
    MissedEventsAreForgotten,
    PersistentWatchesFireOnce,
    RecursiveWatchesStayAtTheTop,
    WritesOutliveTheirRole,
    LeadersWithoutADiskStay,
    ReadsSeeTheWriteBehindThem,
    BoundsAreIgnored,
    NothingIsReaped,
}

/// Whether this is to go wrong in this thread.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub(crate) const fn is_on(_: Mutation) -> bool {
    false
}

#[cfg(feature = "mutations")]
pub(crate) use switch::is_on;
#[cfg(feature = "mutations")]
pub use switch::set;

#[cfg(feature = "mutations")]
mod switch {
    use super::Mutation;
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Turns one on in this thread, or all off.
    pub fn set(mutation: Option<Mutation>) {
        ON.set(mutation);
    }

    pub(crate) fn is_on(mutation: Mutation) -> bool {
        ON.get() == Some(mutation)
    }
}
