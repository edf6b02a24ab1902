//! Medians and percentiles.

/// The value below which this share (0 to 1) of the samples lies; 0 where there are none.
pub(crate) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    // Nearest rank: a sample that was really seen.
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.saturating_sub(1).min(last)]
}

/// The middle sample, or what lies between the two in the middle; 0 where there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        even if even.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// The exponent with which a cost grows: the slope of its logarithm over that of what it depends
/// on, by least squares. `None` with fewer than two different places, or a cost that is not above 0.
pub(crate) fn growth(points: &[(f64, f64)]) -> Option<f64> {
    if points.iter().any(|(x, y)| *x <= 0.0 || *y <= 0.0) {
        return None;
    }
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let mean_x = logs.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = logs.iter().map(|(_, y)| y).sum::<f64>() / count;
    let spread: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let joint: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (spread > 0.0).then(|| joint / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.5), 50.0);
        assert_eq!(percentile(&samples, 0.99), 99.0);
        assert_eq!(percentile(&samples, 1.0), 100.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 9.0]), 3.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn growth_is_the_exponent_of_a_power() {
        let power = |exponent: f64| {
            let points: Vec<_> =
                [1.0, 10.0, 500.0].map(|x: f64| (x, 3.0 * x.powf(exponent))).to_vec();
            growth(&points).unwrap()
        };
        for exponent in [0.0, 0.5, 1.0, 2.0] {
            assert!((power(exponent) - exponent).abs() < 1e-9);
        }
        assert_eq!(growth(&[(1.0, 1.0)]), None);
        assert_eq!(growth(&[(1.0, 0.0), (2.0, 1.0)]), None);
    }
}
