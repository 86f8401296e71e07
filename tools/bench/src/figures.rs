//! What is said about many measurements of the same thing.

/// Median, least and most, with so many decimals. There is at least one value.
pub(crate) fn spread(values: &[f64], decimals: usize) -> String {
    let sorted = sorted(values);
    let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
    let middle = median(values);
    format!("{middle:.decimals$} ({least:.decimals$}–{most:.decimals$})")
}

/// The middle one, or the mean of both in the middle. There is at least one value.
pub(crate) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

/// The least value that so many of a thousand do not exceed. There is at least one value.
pub(crate) fn quantile(values: &[f64], of_a_thousand: usize) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() * of_a_thousand).div_ceil(1000);
    sorted[rank.max(1) - 1]
}

/// Each divided by the one that was measured beside it, at least one.
pub(crate) fn ratios(values: &[f64], beside: &[f64]) -> Vec<f64> {
    let pairs = values.iter().zip(beside);
    pairs.map(|(value, floor)| value / floor).collect()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_odd_and_even_counts() {
        assert_eq!(spread(&[3.0, 1.0, 2.0], 0), "2 (1–3)");
        assert_eq!(spread(&[1.0, 2.0], 1), "1.5 (1.0–2.0)");
    }

    #[test]
    fn quantile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 500), 100.0);
        assert_eq!(quantile(&values, 990), 198.0);
        assert_eq!(quantile(&values, 1000), 200.0);
        assert_eq!(quantile(&[7.0], 1), 7.0);
    }
}
