//! `contacts introduce`; `contacts link`: the link as text, and as a QR code (ISO/IEC 18004) drawn with half blocks.

use super::args::LinkArgs;
use super::{ask, print};
use crate::app::Failure;
use crate::node::control::{Command, Reply};
use qrcode::{Color, EcLevel, QrCode};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::path::Path;

/// Light modules around a code, as the standard wants them.
const QUIET: usize = 4;

/// Prints the link.
pub async fn link(data: &Path, args: LinkArgs, json: bool) -> Result<(), Failure> {
    let reply = ask::request(data, &Command::ContactLink { ring: args.ring }, json).await?;
    let Reply::ContactLink { link, aor, key } = &reply else { return Err(ask::unexpected()) };
    if json {
        print::out(&json!(reply).to_string());
        return Ok(());
    }
    if args.qr || io::stdout().is_terminal() {
        print::out(&drawn(link)?);
    }
    print::out(link);
    print::out(&format!("{aor}, key {key}; on the other side: chordial contacts accept LINK"));
    Ok(())
}

/// `contacts introduce`: done when the message was taken or waits.
pub async fn introduce(data: &Path, command: Command, json: bool) -> Result<(), Failure> {
    let reply = ask::request(data, &command, json).await?;
    let Reply::Sent { sent } = &reply else { return Err(ask::unexpected()) };
    if json {
        print::out(&json!(sent).to_string());
    } else {
        print::out(print::reply(&reply).trim_end());
    }
    Ok(())
}

/// The code, light on dark terminals and dark on light ones alike: both colours are set.
fn drawn(link: &str) -> Result<String, Failure> {
    // In capitals it is in the code's alphanumeric mode, a third smaller.
    let code = QrCode::with_error_correction_level(link.to_uppercase(), EcLevel::L);
    let code = code.map_err(|e| Failure::said(format!("no QR code: {e}"), "copy the text instead"))?;
    let (width, colors) = (code.width(), code.to_colors());
    let dark = |x: usize, y: usize| {
        let (x, y) = (x.wrapping_sub(QUIET), y.wrapping_sub(QUIET));
        x < width && y < width && colors.get(y * width + x) == Some(&Color::Dark)
    };
    let side = width + 2 * QUIET;
    let mut text = String::new();
    for y in (0..side).step_by(2) {
        // Black on white, whatever the terminal's own colours are.
        text.push_str("\u{1b}[30;107m");
        for x in 0..side {
            text.push(match (dark(x, y), dark(x, y + 1)) {
                (true, true) => '\u{2588}',
                (true, false) => '\u{2580}',
                (false, true) => '\u{2584}',
                (false, false) => ' ',
            });
        }
        text.push_str("\u{1b}[0m\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ContactLink, KeyFingerprint, Root, RootFingerprint};

    #[test]
    fn a_drawn_link_is_the_code_with_its_quiet_zone() {
        let link = ContactLink {
            aor: "sip:bob@other.office".into(),
            user_key: KeyFingerprint([7; 16]),
            root: Root::Office(RootFingerprint([9; 16])),
            addrs: vec!["192.0.2.1:5061".parse().unwrap(); 3],
            token: None,
        };
        let text = drawn(&link.text()).unwrap();
        let code = QrCode::with_error_correction_level(link.text().to_uppercase(), EcLevel::L).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), (code.width() + 2 * QUIET).div_ceil(2));
        assert!(code.width() <= 65, "too large for a terminal: {}", code.width());
        // Read back from what is drawn, module by module.
        let cell = |x: usize, y: usize| {
            let c = rows[y / 2].chars().nth(9 + x).unwrap();
            match y % 2 {
                0 => matches!(c, '\u{2588}' | '\u{2580}'),
                _ => matches!(c, '\u{2588}' | '\u{2584}'),
            }
        };
        for y in 0..code.width() {
            for x in 0..code.width() {
                assert_eq!(cell(x + QUIET, y + QUIET), code[(x, y)] == Color::Dark, "{x},{y}");
            }
        }
    }
}
