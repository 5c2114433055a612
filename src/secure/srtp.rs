//! SRTP and SRTCP of one call. A context keeps state for every SSRC that it is shown, proven or not: only so many are let in.

use rtc_srtp::context::Context;
use rtc_srtp::crypto::default_provider;
use rtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc_srtp::protection_profile::ProtectionProfile;

/// Packets that may be overtaken by later ones.
const WINDOW: usize = 128;
/// Sources of one direction whose packets are looked at: a voice, and those that took over after a change.
const SOURCES: usize = 8;

/// Both directions.
pub(super) struct Srtp {
    send: Context,
    receive: Context,
    /// SSRCs that have proven themselves, and those on trial.
    proven: Vec<u32>,
    trial: Vec<u32>,
}

impl Srtp {
    /// From DTLS's exported keys (RFC 5764 section 4.2); `None` when they do not fit the profile.
    pub fn new(profile: ProtectionProfile, material: &[u8], client: bool) -> Option<Srtp> {
        let (key, salt) = (profile.key_len(), profile.salt_len());
        if material.len() < 2 * (key + salt) {
            return None;
        }
        let (client_key, rest) = material.split_at(key);
        let (server_key, rest) = rest.split_at(key);
        let (client_salt, rest) = rest.split_at(salt);
        let server_salt = &rest[..salt];
        let (ours, theirs) = match client {
            true => ((client_key, client_salt), (server_key, server_salt)),
            false => ((server_key, server_salt), (client_key, client_salt)),
        };
        let provider = default_provider().ok()?;
        let context = |(key, salt): (&[u8], &[u8])| {
            let (rtp, rtcp) = (srtp_replay_protection(WINDOW), srtcp_replay_protection(WINDOW));
            Context::new(key, salt, profile, Some(rtp), Some(rtcp), provider.crypto()).ok()
        };
        Some(Srtp { send: context(ours)?, receive: context(theirs)?, proven: Vec::new(), trial: Vec::new() })
    }

    pub fn protect_rtp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        self.send.encrypt_rtp(plain).ok().map(|b| b.to_vec())
    }

    pub fn protect_rtcp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        self.send.encrypt_rtcp(plain).ok().map(|b| b.to_vec())
    }

    pub fn unprotect_rtp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let source = source(packet, 8)?;
        self.admit(source)?;
        let plain = self.receive.decrypt_rtp(packet).ok()?.to_vec();
        self.prove(source);
        Some(plain)
    }

    pub fn unprotect_rtcp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let source = source(packet, 4)?;
        self.admit(source)?;
        let plain = self.receive.decrypt_rtcp(packet).ok()?.to_vec();
        self.prove(source);
        Some(plain)
    }

    fn admit(&mut self, source: u32) -> Option<()> {
        if !self.proven.contains(&source) && !self.trial.contains(&source) {
            if self.trial.len() >= SOURCES {
                // What a context has seen it does not forget: later strangers are not even tried.
                return None;
            }
            self.trial.push(source);
        }
        Some(())
    }

    fn prove(&mut self, source: u32) {
        if !self.proven.contains(&source) && self.proven.len() < SOURCES {
            self.trial.retain(|s| *s != source);
            self.proven.push(source);
        }
    }
}

fn source(packet: &[u8], at: usize) -> Option<u32> {
    let bytes = packet.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
