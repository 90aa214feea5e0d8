//! Which endpoint gets the next request: the less loaded one of two that chance picks (power of two choices).

use smallvec::SmallVec;

use super::standing::WHOLE;

/// What a choice looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Requests in flight.
    pub(super) load: usize,
    /// What it gets of its share; 0: it is left alone.
    pub(super) share: u32,
}

/// Chooses among `count` endpoints, of which `look` tells. Not `avoid`, if another is usable; where all are left alone, all
/// are asked: the worst that can happen is what would happen anyway.
pub(super) fn choose(
    count: usize,
    avoid: Option<usize>,
    random: u64,
    mut look: impl FnMut(usize) -> Candidate,
) -> usize {
    let mut usable: SmallVec<[(usize, Candidate); 8]> =
        (0..count).map(|index| (index, look(index))).filter(|(_, found)| found.share > 0).collect();
    if let Some(avoid) = avoid
        && usable.iter().any(|(index, _)| *index != avoid)
    {
        usable.retain(|(index, _)| *index != avoid);
    }
    if usable.is_empty() {
        usable.extend((0..count).map(|index| (index, Candidate { load: look(index).load, share: WHOLE })));
        if count > 1 {
            usable.retain(|(index, _)| Some(*index) != avoid);
        }
    }
    two_of(&usable, random)
}

fn two_of(usable: &[(usize, Candidate)], random: u64) -> usize {
    let (first, second) = match usable {
        [] => return 0,
        [only] => return only.0,
        [a, b] if random & 1 == 0 => (a, b),
        [a, b] => (b, a),
        _ => {
            let first = below(random >> 32, usable.len());
            let second = below(random & u64::from(u32::MAX), usable.len() - 1);
            (&usable[first], &usable[if second >= first { second + 1 } else { second }])
        }
    };
    // A returning endpoint stands back as often as its share is not whole.
    let stands_back = |share: u32, dice: u64| share < WHOLE && (dice & 0xFF) as u32 >= share;
    let later = (random >> 8, random >> 16);
    match (stands_back(first.1.share, later.0), stands_back(second.1.share, later.1)) {
        (true, false) => second.0,
        (false, true) => first.0,
        _ if second.1.load < first.1.load => second.0,
        _ => first.0,
    }
}

/// A number below `bound` from 32 random bits.
fn below(random: u64, bound: usize) -> usize {
    // The product of two numbers under 2^32, shifted back.
    ((random * bound as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::super::super::splitmix;
    use super::*;

    fn random(turn: u64) -> u64 {
        splitmix::mix(turn.wrapping_mul(splitmix::STEP))
    }

    /// How often each is chosen in 10,000 choices.
    fn counts(candidates: &[(usize, u32)], avoid: Option<usize>) -> Vec<usize> {
        let mut counts = vec![0; candidates.len()];
        for turn in 0..10_000 {
            let look = |index: usize| Candidate { load: candidates[index].0, share: candidates[index].1 };
            counts[choose(candidates.len(), avoid, random(turn), look)] += 1;
        }
        counts
    }

    #[test]
    fn equals_share_alike_and_the_most_loaded_is_never_taken() {
        for count in 1..=9 {
            let found = counts(&vec![(1, WHOLE); count], None);
            let fair = 10_000 / count;
            assert!(found.iter().all(|found| found.abs_diff(fair) < fair / 5 + 1), "{found:?}");
        }
        let found = counts(&[(5, WHOLE), (9, WHOLE), (1, WHOLE), (7, WHOLE)], None);
        assert_eq!(found[1], 0);
        // The least loaded is taken whenever it is one of the two.
        assert!(found[2].abs_diff(5_000) < 500, "{found:?}");
        assert_eq!(counts(&[(3, WHOLE), (2, WHOLE)], None), [0, 10_000]);
    }

    #[test]
    fn loads_even_out_as_requests_come() {
        let mut loads = [0_usize; 10];
        for turn in 0..10_000 {
            let chosen = choose(10, None, random(turn), |index| Candidate { load: loads[index], share: WHOLE });
            loads[chosen] += 1;
        }
        let (least, most) = (loads.iter().min(), loads.iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least < 10), "{loads:?}");
    }

    #[test]
    fn who_is_left_alone_gets_nothing_unless_all_are() {
        let found = counts(&[(0, 0), (50, WHOLE), (60, WHOLE)], None);
        assert_eq!(found[0], 0);
        let found = counts(&[(0, 0), (0, 0), (0, 0)], None);
        assert!(found.iter().all(|found| *found > 2_500), "{found:?}");
    }

    #[test]
    fn a_second_try_goes_elsewhere_if_there_is_an_elsewhere() {
        assert_eq!(counts(&[(0, WHOLE), (99, WHOLE)], Some(0)), [0, 10_000]);
        assert_eq!(counts(&[(0, WHOLE)], Some(0)), [10_000]);
        // The other one is known to be dead: better the same once more.
        assert_eq!(counts(&[(0, WHOLE), (0, 0)], Some(0)), [10_000, 0]);
        assert_eq!(counts(&[(0, 0), (0, 0)], Some(0)), [0, 10_000]);
    }

    #[test]
    fn a_returning_endpoint_gets_its_part() {
        let found = counts(&[(0, WHOLE / 4), (0, WHOLE)], None);
        // Of the quarter in which it does not stand back, the tie gives it half.
        assert!(found[0].abs_diff(1_250) < 250, "{found:?}");
        let found = counts(&[(0, WHOLE / 4), (30, WHOLE)], None);
        assert!(found[0].abs_diff(2_500) < 400, "{found:?}");
    }
}
