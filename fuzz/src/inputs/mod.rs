//! Everything that takes bytes from outside, each as a function of bytes: what it does with them, and what must hold
//! whatever they are. libFuzzer runs these functions by the million (`make fuzz`), tests/bad_input.rs some thousand
//! times in `make test`.

mod config;
mod firmware;
mod image;
mod made;
mod request;
mod stemcell;
mod template;
mod xml;

/// One kind of input.
pub struct Target {
    pub name: &'static str,
    /// Whether the input is a good one; panics when it is handled wrongly.
    pub run: fn(&[u8]) -> bool,
    /// Good inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: [Target; 10] = [
    Target {
        name: "request",
        run: request::run,
        seeds: request::seeds,
    },
    Target {
        name: "config",
        run: config::run,
        seeds: config::seeds,
    },
    Target {
        name: "overlay",
        run: config::run_overlay,
        seeds: config::overlay_seeds,
    },
    Target {
        name: "template",
        run: template::run,
        seeds: template::seeds,
    },
    Target {
        name: "stemcell",
        run: stemcell::run,
        seeds: stemcell::seeds,
    },
    Target {
        name: "qcow2",
        run: image::run,
        seeds: image::qcow2_seeds,
    },
    Target {
        name: "vmdk",
        run: image::run,
        seeds: image::vmdk_seeds,
    },
    Target {
        name: "vhd",
        run: image::run,
        seeds: image::vhd_seeds,
    },
    Target {
        name: "firmware",
        run: firmware::run,
        seeds: firmware::seeds,
    },
    Target {
        name: "xml",
        run: xml::run,
        seeds: xml::seeds,
    },
];
