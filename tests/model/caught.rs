//! Every mutant is caught by the rule that it offends, and only because it is a mutant: the
//! same scenario without it breaks nothing.

use crate::explore::explore;
use crate::mutants::Mutant;
use crate::rules::Rule;
use crate::scenario::{Budget, Scenario};

/// A little of what usually happens.
const TRAFFIC: Budget = Budget {
    bytes: 2,
    cuts: 1,
    ..Budget::NONE
};

fn assert_caught(mutant: Mutant, budget: Budget, rule: Rule) {
    let sound = Scenario {
        budget,
        ..Scenario::quiet("sound")
    };
    assert_caught_in(sound, mutant, rule);
}

fn assert_caught_in(sound: Scenario, mutant: Mutant, rule: Rule) {
    if let Err(found) = explore(&sound) {
        panic!("not the mutant's fault:\n{found}");
    }
    let found = explore(&Scenario { mutant, ..sound }).expect_err("the mutant survives");
    println!("{mutant:?}:\n{found}");
    assert_eq!(found.broken.rule, rule, "caught by another rule");
}

#[test]
fn resume_without_revoke_makes_two_owners() {
    let budget = Budget {
        deadlines: 1,
        ..TRAFFIC
    };
    assert_caught(Mutant::ResumeWithoutRevoke, budget, Rule::OneServer);
}

#[test]
fn claim_without_one_serves_what_was_revoked() {
    let budget = Budget {
        deadlines: 1,
        ..TRAFFIC
    };
    assert_caught(Mutant::ClaimWithoutOne, budget, Rule::ClaimFirst);
}

#[test]
fn claim_without_end_serves_stale_state() {
    assert_caught(Mutant::ClaimWithoutEnd, TRAFFIC, Rule::Position);
}

#[test]
fn grant_after_end_loses_all_with_the_donor() {
    let budget = Budget {
        donor_kills: 1,
        ..TRAFFIC
    };
    assert_caught(Mutant::GrantAfterEnd, budget, Rule::NoAvoidableLoss);
}

#[test]
fn changed_told_late_hands_over_stale_state() {
    assert_caught(Mutant::ChangedToldLate, TRAFFIC, Rule::Position);
}

#[test]
fn untracked_dirty_hands_over_stale_state() {
    assert_caught(Mutant::UntrackedDirty, TRAFFIC, Rule::Position);
}

#[test]
fn eof_taken_as_death_by_the_taker_serves_unclaimed() {
    let budget = Budget {
        donor_kills: 1,
        ..TRAFFIC
    };
    assert_caught(Mutant::TakerTakesEofForDeath, budget, Rule::ClaimFirst);
}

#[test]
fn eof_taken_as_death_by_the_donor_makes_two_owners() {
    let budget = Budget { lies: 1, ..TRAFFIC };
    assert_caught(Mutant::DonorTakesEofForDeath, budget, Rule::OneServer);
}

#[test]
fn peers_released_before_claim_are_lost_in_a_rollback() {
    assert_caught(
        Mutant::ReleasedBeforeClaim,
        TRAFFIC,
        Rule::ReleaseAfterClaim,
    );
}

#[test]
fn commit_by_message_makes_two_owners() {
    let budget = Budget {
        deadlines: 1,
        ..TRAFFIC
    };
    assert_caught(Mutant::CommitByMessage, budget, Rule::OneServer);
}

#[test]
fn no_final_sweep_loses_readiness() {
    assert_caught(Mutant::NoFinalSweep, TRAFFIC, Rule::Wakes);
}

#[test]
fn no_run_bit_loses_readiness() {
    assert_caught(Mutant::NoRunBit, TRAFFIC, Rule::Wakes);
}

#[test]
fn settle_after_drained_loses_readiness() {
    assert_caught(Mutant::SettleAfterDrained, TRAFFIC, Rule::Wakes);
}

/// Stale readiness that is not drained is only served in vain. What settling saves is the
/// time to walk through it at the first wait after the claim, when clients wait as well.
#[test]
fn settle_skipped_loses_nothing_but_time() {
    let scenario = Scenario {
        mutant: Mutant::SettleSkipped,
        budget: TRAFFIC,
        ..Scenario::quiet("settle skipped")
    };
    assert!(explore(&scenario).is_ok());
}

#[test]
fn closed_not_told_leaves_the_taker_an_ended_peer() {
    let budget = Budget {
        closes: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::ClosedNotTold, budget, Rule::TakerHasTheRest);
}

#[test]
fn copies_kept_on_leave_outlive_the_attempt() {
    let budget = Budget {
        deadlines: 1,
        ..TRAFFIC
    };
    assert_caught(Mutant::CopiesKeptOnLeave, budget, Rule::NoCopiesLeft);
}

#[test]
fn deadline_before_readiness_overlooks_end() {
    let budget = Budget {
        deadlines: 1,
        donor_kills: 1,
        ..TRAFFIC
    };
    assert_caught(
        Mutant::DeadlineBeforeReadiness,
        budget,
        Rule::NoAvoidableLoss,
    );
}

#[test]
fn silence_taken_for_life_leaves_all_to_a_dying_owner() {
    let budget = Budget {
        deadlines: 2,
        taker_kills: 1,
        taker_stops: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::SilenceIsLife, budget, Rule::HeldUntilActive);
}

/// The donor takes the end of an owner that was told to stop for a death, and serves on.
#[test]
fn owner_that_leaves_untold_is_survived_by_its_donor() {
    let budget = Budget {
        taker_terms: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::LeavesUntold, budget, Rule::Term);
}

#[test]
fn second_term_unrevoked_lets_the_service_come_back() {
    let budget = Budget {
        donor_terms: 2,
        taker_stops: 1,
        conts: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::SecondTermUnrevoked, budget, Rule::Term);
}

/// The donor died with a word of the taker's unread; the taker's next receive says ECONNRESET,
/// and END is still behind it.
#[test]
fn reset_taken_for_the_end_overlooks_end() {
    let budget = Budget {
        lies: 1,
        donor_kills: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::ResetIsTheEnd, budget, Rule::HeardOut);
}

#[test]
fn busy_not_checked_forgets_a_taker() {
    let budget = Budget {
        takers: 1,
        ..TRAFFIC
    };
    assert_caught(Mutant::BusyNotChecked, budget, Rule::NoCopiesLeft);
}

/// The final array is no place to decline anything.
#[test]
fn unwanted_item_offered_again_fails_the_takeover() {
    let budget = Budget {
        opens: 1,
        declines: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::UnwantedOffered, budget, Rule::NoBlame);
}

#[test]
fn dead_peer_refused_fails_the_takeover() {
    let budget = Budget {
        resets: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::DeadPeerRefused, budget, Rule::NoBlame);
}

#[test]
fn lease_used_again_is_granted_twice() {
    let budget = Budget {
        deadlines: 1,
        takers: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::LeaseUsedAgain, budget, Rule::OneGrant);
}

#[test]
fn end_not_compared_serves_stale_state() {
    let budget = Budget { lies: 1, ..TRAFFIC };
    assert_caught(Mutant::EndNotCompared, budget, Rule::Position);
}

#[test]
fn active_believed_releases_what_was_not_claimed() {
    let budget = Budget {
        lies: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::ActiveBelieved, budget, Rule::ReleaseAfterClaim);
}

#[test]
fn active_given_up_leaves_the_donor_waiting_for_ever() {
    let budget = Budget {
        glitches: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::ActiveGivenUp, budget, Rule::SomebodyServes);
}

#[test]
fn owner_taken_over_before_it_has_said_active_leaves_a_donor_that_waits() {
    let budget = Budget {
        chains: 1,
        ..Budget::NONE
    };
    assert_caught(Mutant::TakenOverUntold, budget, Rule::SomebodyServes);
}

/// What the sessions do beyond what the machines need. A death alone settles nothing: the channel's
/// end has to come as well, and everything is read before that. It saves the reason of a FAIL.
/// An outcome that is told at once comes before the rest of a list that does not depend on it.
#[test]
fn death_before_last_words_and_outcome_told_at_once_break_nothing() {
    let budgets = [
        Budget {
            taker_kills: 1,
            lies: 1,
            ..TRAFFIC
        },
        Budget {
            taker_kills: 1,
            deadlines: 1,
            ..TRAFFIC
        },
        Budget {
            taker_kills: 1,
            taker_terms: 1,
            donor_terms: 1,
            ..Budget::NONE
        },
        Budget {
            taker_kills: 1,
            chains: 1,
            glitches: 1,
            ..Budget::NONE
        },
    ];
    for budget in budgets {
        for mutant in [Mutant::DeathBeforeLastWords, Mutant::OutcomeToldAtOnce] {
            let scenario = Scenario {
                mutant,
                budget,
                ..Scenario::quiet("courtesy")
            };
            if let Err(found) = explore(&scenario) {
                panic!("{mutant:?}:\n{found}");
            }
        }
    }
}
