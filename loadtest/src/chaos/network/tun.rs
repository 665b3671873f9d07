//! A network namespace for the calling thread, with one TUN device in it.

use std::fs::File;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType};
use rustix::thread::UnshareFlags;

/// The device's name in its namespace.
const DEVICE: &[u8] = b"chaos0";
/// The loopback device's name.
const LOOPBACK: &[u8] = b"lo";
/// Longest packet: larger than Ethernet's, so that bulk costs the switch fewer system calls.
pub(super) const PACKET_BYTES_MAX: usize = 9000;
/// All nodes are in one subnet of this mask.
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// Puts the calling thread into a new network namespace in which it has `address`. Packets it
/// sends to the subnet come out of the returned file, and packets written there reach it.
/// Threads and processes started from here on inherit the namespace; it goes with the last of
/// them.
///
/// # Errors
/// When the rights for it are missing, or the kernel has no TUN device.
pub(crate) fn enter_namespace(address: Ipv4Addr) -> io::Result<File> {
    // SAFETY: file descriptors stay shared; only the network namespace is replaced.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = request(DEVICE);
    request.ifr_ifru.ifru_flags = flag_bits(libc::IFF_TUN | libc::IFF_NO_PI);
    control(tun.as_fd(), libc::TUNSETIFF, &mut request)?;
    rustix::io::ioctl_fionbio(&tun, true)?;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    set_address(&socket, libc::SIOCSIFADDR, address)?;
    set_address(&socket, libc::SIOCSIFNETMASK, NETMASK)?;
    let mut request = self::request(DEVICE);
    request.ifr_ifru.ifru_mtu = PACKET_BYTES_MAX as libc::c_int;
    control(socket.as_fd(), libc::SIOCSIFMTU, &mut request)?;
    bring_up(&socket, DEVICE)?;
    bring_up(&socket, LOOPBACK)?;
    Ok(tun)
}

fn bring_up(socket: &OwnedFd, device: &[u8]) -> io::Result<()> {
    let mut request = request(device);
    request.ifr_ifru.ifru_flags = flag_bits(libc::IFF_UP | libc::IFF_RUNNING);
    control(socket.as_fd(), libc::SIOCSIFFLAGS, &mut request)
}

/// Device flags as the request holds them: all that are used here are in the low bits.
fn flag_bits(flags: libc::c_int) -> libc::c_short {
    flags as libc::c_short
}

fn set_address(socket: &OwnedFd, what: libc::Ioctl, address: Ipv4Addr) -> io::Result<()> {
    let internet = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    let mut request = request(DEVICE);
    // SAFETY: both are plain C structures of 16 bytes without padding; the kernel reads the
    // one as the other according to the family in it.
    request.ifr_ifru.ifru_addr =
        unsafe { mem::transmute::<libc::sockaddr_in, libc::sockaddr>(internet) };
    control(socket.as_fd(), what, &mut request)
}

fn request(device: &[u8]) -> libc::ifreq {
    // SAFETY: a plain C structure of integers, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device) {
        *to = *from as libc::c_char;
    }
    request
}

fn control(file: BorrowedFd<'_>, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: all of these requests take a pointer to an `ifreq`, valid for the call.
    match unsafe { libc::ioctl(file.as_raw_fd(), what, std::ptr::from_mut(request)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
