//! Opus by libopus 1.6, built from source by `opusic-sys`. The only place that calls C.

use opusic_sys as ffi;
use std::ptr::NonNull;

const RATE: i32 = 48_000;
const MONO: i32 = 1;

pub(super) fn name() -> &'static str {
    // SAFETY: the library returns a static, NUL-terminated string.
    let text = unsafe { std::ffi::CStr::from_ptr(ffi::opus_get_version_string()) };
    text.to_str().unwrap_or("libopus")
}

pub(super) struct RawEncoder(NonNull<ffi::OpusEncoder>);

// SAFETY: an encoder has no ties to the thread that made it; `&mut self` keeps the calls apart.
unsafe impl Send for RawEncoder {}

impl RawEncoder {
    pub(super) fn new(bitrate: i32, expected_loss: u8) -> Result<Self, i32> {
        let mut code = ffi::OPUS_OK;
        // SAFETY: `code` outlives the call; the result is checked for null.
        let state = unsafe { ffi::opus_encoder_create(RATE, MONO, ffi::OPUS_APPLICATION_VOIP, &mut code) };
        let mut encoder = RawEncoder(NonNull::new(state).ok_or(code)?);
        encoder.set(ffi::OPUS_SET_BITRATE_REQUEST, bitrate)?;
        encoder.set(ffi::OPUS_SET_SIGNAL_REQUEST, ffi::OPUS_SIGNAL_VOICE)?;
        encoder.set(ffi::OPUS_SET_INBAND_FEC_REQUEST, 1)?;
        encoder.set(ffi::OPUS_SET_DTX_REQUEST, 0)?;
        encoder.set(ffi::OPUS_SET_PACKET_LOSS_PERC_REQUEST, i32::from(expected_loss))?;
        Ok(encoder)
    }

    pub(super) fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, i32> {
        let (samples, room) = (length(pcm.len()), length(out.len()));
        // SAFETY: both slices are valid for the lengths given, mono, and the state is ours alone.
        let written = unsafe { ffi::opus_encode(self.0.as_ptr(), pcm.as_ptr(), samples, out.as_mut_ptr(), room) };
        usize::try_from(written).map_err(|_| written)
    }

    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        // Refused only above 100, which the caller excludes.
        let _ = self.set(ffi::OPUS_SET_PACKET_LOSS_PERC_REQUEST, i32::from(percent));
    }

    fn set(&mut self, request: i32, value: i32) -> Result<(), i32> {
        // SAFETY: every request used here takes one int by value.
        match unsafe { ffi::opus_encoder_ctl(self.0.as_ptr(), request, value) } {
            ffi::OPUS_OK => Ok(()),
            code => Err(code),
        }
    }
}

impl Drop for RawEncoder {
    fn drop(&mut self) {
        // SAFETY: made by opus_encoder_create and destroyed once.
        unsafe { ffi::opus_encoder_destroy(self.0.as_ptr()) }
    }
}

pub(super) struct RawDecoder(NonNull<ffi::OpusDecoder>);

// SAFETY: as for the encoder.
unsafe impl Send for RawDecoder {}

impl RawDecoder {
    pub(super) fn new() -> Result<Self, i32> {
        let mut code = ffi::OPUS_OK;
        // SAFETY: `code` outlives the call; the result is checked for null.
        let state = unsafe { ffi::opus_decoder_create(RATE, MONO, &mut code) };
        NonNull::new(state).map(RawDecoder).ok_or(code)
    }

    pub(super) fn decode(&mut self, input: Option<&[u8]>, out: &mut [i16], redundancy: bool) -> Result<usize, i32> {
        let (data, bytes) = input.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr(), length(bytes.len())));
        let (room, fec) = (length(out.len()), i32::from(redundancy));
        // SAFETY: null with length 0 asks for concealment; else both slices are valid for the lengths given.
        let samples = unsafe { ffi::opus_decode(self.0.as_ptr(), data, bytes, out.as_mut_ptr(), room, fec) };
        usize::try_from(samples).map_err(|_| samples)
    }
}

impl Drop for RawDecoder {
    fn drop(&mut self) {
        // SAFETY: made by opus_decoder_create and destroyed once.
        unsafe { ffi::opus_decoder_destroy(self.0.as_ptr()) }
    }
}

/// Buffers here are at most a few thousand long.
fn length(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
