//! `cpi screenshot VM FILE.png`: what the VM's screen shows now.

use std::path::Path;

use super::print;
use crate::vm;
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::Config;
use libvirt_host::Connection;

pub fn run(vm: &str, file: &Path, config: &Config) -> Result<()> {
    let cid = Cid::new(vm).map_err(Error::cpi)?;
    let libvirt = Connection::open(&config.libvirt)?;
    let domain = vm::get(&libvirt, &cid)?;
    if !domain.is_active()? {
        return Err(Error::cpi(format!(
            "VM {cid} does not run, so its screen shows nothing"
        )));
    }
    let xml = domain.xml()?;
    if xml.descend(&["devices", "video"]).is_none() {
        return Err(Error::cpi(format!(
            "VM {cid} has no screen: its domain has no video device; `cpi console {cid}` shows what it wrote to its \
             serial console"
        )));
    }
    let shot = domain.screenshot(&libvirt)?;
    let (image, width, height) = match shot.mime_type.as_str() {
        "image/png" => {
            let (width, height) = png_size(&shot.image)?;
            (shot.image, width, height)
        }
        "image/x-portable-pixmap" => {
            let pixmap =
                Pixmap::parse(&shot.image).ok_or_else(|| Error::cpi("QEMU's screenshot is no pixmap"))?;
            (pixmap.to_png()?, pixmap.width, pixmap.height)
        }
        other => return Err(Error::cpi(format!("screenshots of type {other:?} are not known"))),
    };
    std::fs::write(file, image).map_err(|e| Error::cpi(format!("writing {}: {e}", file.display())))?;
    print(&format!("{}: {width} x {height} pixels\n", file.display()))
}

fn png_size(image: &[u8]) -> Result<(u32, u32)> {
    let reader = png::Decoder::new(std::io::Cursor::new(image)).read_info();
    let reader = reader.map_err(|e| Error::cpi(format!("the screenshot is no PNG: {e}")))?;
    Ok(reader.info().size())
}

/// A binary portable pixmap (P6) of 8 bits a colour, as QEMU writes it.
struct Pixmap<'a> {
    width: u32,
    height: u32,
    /// Red, green, blue, row by row.
    pixels: &'a [u8],
}

impl<'a> Pixmap<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(b"P6")?;
        let mut numbers = [0u32; 3];
        for number in &mut numbers {
            rest = rest.trim_ascii_start();
            while let Some(comment) = rest.strip_prefix(b"#") {
                let end = comment.iter().position(|byte| *byte == b'\n')?;
                rest = comment[end..].trim_ascii_start();
            }
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            *number = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
            rest = &rest[digits..];
        }
        let [width, height, deepest] = numbers;
        let bytes = usize::try_from(width)
            .ok()?
            .checked_mul(usize::try_from(height).ok()?)?
            .checked_mul(3)?;
        // One white space after the header.
        let pixels = rest.get(1..)?.get(..bytes)?;
        (deepest == 255 && bytes > 0).then_some(Self {
            width,
            height,
            pixels,
        })
    }

    fn to_png(&self) -> Result<Vec<u8>> {
        let failed = |e: png::EncodingError| Error::cpi(format!("writing the PNG: {e}"));
        let mut image = Vec::new();
        let mut encoder = png::Encoder::new(&mut image, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(self.pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixmap_becomes_a_png_with_the_same_pixels() {
        let ppm = b"P6\n# QEMU\n2 1\n255\n\xff\x00\x00\x00\x00\xff";
        let pixmap = Pixmap::parse(ppm).unwrap();
        let image = pixmap.to_png().unwrap();
        assert_eq!(png_size(&image).unwrap(), (2, 1));
        let mut reader = png::Decoder::new(std::io::Cursor::new(&image))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, b"\xff\x00\x00\x00\x00\xff");
    }

    #[test]
    fn what_is_no_pixmap_is_refused() {
        for bytes in [
            &b""[..],
            b"P6",
            b"P5 1 1 255 x",
            b"P6 1 1 255 \x00\x00",
            b"P6 0 0 255 ",
            b"P6 1 1 65535 \0\0\0\0\0\0",
        ] {
            assert!(Pixmap::parse(bytes).is_none(), "{bytes:?}");
        }
    }
}
