//! The ring as text: a circle of dots, the peers on it clockwise in the order of their peer-IDs.

/// One peer to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What stands beside it.
    pub label: String,
    /// Killed.
    pub dead: bool,
}

/// Draws `places`, the first at the top; `middle` stands in the circle, a line each.
pub fn draw(places: &[Place], middle: &[String]) -> String {
    let mut canvas = vec![vec![' '; WIDTH]; HEIGHT];
    for step in 0..DOTS {
        let (x, y) = point(step as f64 / DOTS as f64, 1.0);
        canvas[y][x] = '·';
    }
    let top = (HEIGHT - middle.len().min(HEIGHT)) / 2;
    for (row, line) in canvas[top..].iter_mut().zip(middle) {
        let line: Vec<char> = line.chars().take(WIDTH).collect();
        put(row, (WIDTH - line.len()) / 2, &line);
    }
    for (i, place) in places.iter().enumerate() {
        let turn = i as f64 / places.len() as f64;
        let (x, y) = point(turn, 1.0);
        let label: Vec<char> = place.label.chars().collect();
        let row = &mut canvas[y];
        // Labels stand outside of the circle, on the side they are on.
        if turn <= 0.5 {
            put(row, (x + 2).min(WIDTH.saturating_sub(label.len())), &label);
        } else {
            put(row, x.saturating_sub(1 + label.len()), &label);
        }
        put(row, x.saturating_sub(1), &[' ', ' ', ' ']);
        row[x] = if place.dead { '✗' } else { '●' };
    }
    let mut text = String::new();
    for row in canvas {
        text.push_str(row.iter().collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

fn put(row: &mut [char], at: usize, text: &[char]) {
    for (cell, c) in row.iter_mut().skip(at).zip(text) {
        *cell = *c;
    }
}

/// Where on the canvas a point of the circle lies: `turn` in 0..1 clockwise from the top.
fn point(turn: f64, radius: f64) -> (usize, usize) {
    let angle = turn * std::f64::consts::TAU;
    let (half_width, half_height) = ((WIDTH / 2) as f64, (HEIGHT / 2) as f64);
    let x = half_width + angle.sin() * radius * RADIUS;
    let y = half_height - angle.cos() * radius * half_height;
    (x.round() as usize, y.round() as usize)
}

/// Columns; a character is about twice as high as wide.
const WIDTH: usize = 80;
const HEIGHT: usize = 17;
const RADIUS: f64 = 17.0;
const DOTS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_is_on_the_ring_in_order_and_the_dead_are_marked() {
        for n in 1..=12 {
            let places: Vec<_> =
                (0..n).map(|i| Place { label: format!("peer{i:02} 0123abcd"), dead: i == 2 }).collect();
            let text = draw(&places, &["demo".into(), format!("{n} peers")]);
            assert_eq!(text.matches('✗').count(), usize::from(n > 2), "{text}");
            assert_eq!(text.matches('●').count() + text.matches('✗').count(), n, "{text}");
            for place in &places {
                assert!(text.contains(&place.label), "{} is missing:\n{text}", place.label);
            }
            assert!(text.contains("demo"));
            assert!(text.lines().all(|l| l.chars().count() <= WIDTH));
        }
    }

    #[test]
    fn clockwise_from_the_top() {
        let places: Vec<_> = "abcd".chars().map(|c| Place { label: c.into(), dead: false }).collect();
        let text = draw(&places, &[]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("● a") && lines[HEIGHT - 1].contains("● c"), "{text}");
        let middle = lines[HEIGHT / 2];
        assert!(middle.find('d') < middle.find('b'), "{text}");
    }
}
