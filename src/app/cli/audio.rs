//! `audio`: the sound devices, and what to write to use one. It asks the sound server, not the running program.

use super::print;
use crate::app::Failure;
use crate::io::audio::device::{self, Device, Direction};
use serde_json::json;

/// Lists the devices: a table, or one object a line.
pub fn list(json: bool) -> Result<(), Failure> {
    let devices = device::list().map_err(|e| Failure::said(e.to_string(), e.next()))?;
    if json {
        devices.iter().for_each(|d| print::out(&object(d).to_string()));
        return Ok(());
    }
    if devices.is_empty() {
        print::out("the sound server has no devices");
        return Ok(());
    }
    print::out(print::table(devices.iter().map(row)).trim_end());
    print::out("* is used with auto and device; a part of a name or description is enough");
    Ok(())
}

fn flag(device: &Device) -> String {
    let flag = match device.direction {
        Direction::In => "--audio-in",
        Direction::Out => "--audio-out",
    };
    format!("{flag} device:{}", device.name)
}

fn row(device: &Device) -> [String; 3] {
    let kind = if device.monitor { " (what the loudspeaker plays)" } else { "" };
    let default = if device.default { "*" } else { "" };
    [default.into(), flag(device), format!("{}{kind}", device.description)]
}

fn object(device: &Device) -> serde_json::Value {
    json!({
        "direction": match device.direction { Direction::In => "in", Direction::Out => "out" },
        "name": device.name,
        "description": device.description,
        "default": device.default,
        "monitor": device.monitor,
        "use": format!("device:{}", device.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_to_write() {
        let headset = Device {
            direction: Direction::In,
            name: "usb.mic".into(),
            description: "USB Headset".into(),
            default: true,
            monitor: false,
        };
        assert_eq!(row(&headset), ["*", "--audio-in device:usb.mic", "USB Headset"]);
        assert_eq!(object(&headset)["use"], "device:usb.mic");
        assert_eq!(object(&headset)["default"], true);
    }
}
