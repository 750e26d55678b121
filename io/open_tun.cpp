// Opening TAP and TUN devices (Documentation/networking/tuntap.rst).
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/claim.h"
#include "io/clock.h"
#include "io/interface_query.h"
#include "io/link.h"
#include "io/steering_program.h"
#include "io/syscalls.h"
#include "io/yield.h"

namespace ustack::io {

namespace {

constexpr char kTunDevice[] = "/dev/net/tun";
std::string mode_name(bool tap) { return tap ? "tap" : "tun"; }

std::string how_to_get_rights(const std::string& name, bool tap) {
  bool automatic = name.find('%') != std::string::npos;
  std::string device = automatic ? mode_name(tap) + "0" : name;
  return "run it as root or with CAP_NET_ADMIN in this network namespace; or in a network namespace of its "
         "own "
         "(unshare -Urn PROGRAM); or have root make a persistent device for you (ip tuntap add dev " +
         device + " mode " + mode_name(tap) + " user " + std::to_string(sys::call(SYS_geteuid)) + ")" +
         (automatic ? " and set USTACK_LINK=" + mode_name(tap) + ":" + device : "");
}

OpenError tun_unavailable(int code) {
  std::string message = "can't open " + std::string(kTunDevice) + ": ";
  switch (code) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      message +=
          "the kernel's tun driver is not there; load it (modprobe tun), and in a container hand the device "
          "in "
          "(docker run --device /dev/net/tun)";
      break;
    case EACCES:
    case EPERM:
      message +=
          "permission denied; its mode should be 0666 (the driver checks for CAP_NET_ADMIN itself), and a "
          "container's device rules must allow it (docker run --device /dev/net/tun)";
      break;
    default:
      message += std::strerror(code);
  }
  return {code, message};
}

OpenError attach_error(int code, const std::string& name, bool tap, bool existed, uint32_t queues) {
  std::string device = "the " + mode_name(tap) + " device " + name;
  switch (code) {
    case EPERM:
    case EACCES:
      if (existed) {
        return {code, "no right to use " + device + ": it exists but belongs to another user; " +
                          how_to_get_rights(name, tap)};
      }
      return {code,
              "no right to make " + device + ": CAP_NET_ADMIN is missing; " + how_to_get_rights(name, tap)};
    case EBUSY:
      return {code, device + " is in use by another program", name};
    case EINVAL:
      if (existed) {
        return {code, "the device " + name + " exists but can't be used as a " + mode_name(tap) + " device" +
                          (queues > 1 ? " with several queues: it is of another kind or mode, or was made "
                                        "without multi_queue (ip -d link show "
                                      : ": it is of another kind or mode (ip -d link show ") +
                          name + " tells)"};
      }
      break;
    case ENFILE:
      return {code, "no free device name for " + name};
    default:
      break;
  }
  return {code, "can't open " + device + ": " + std::strerror(code)};
}

/// TUNSETIFF, again while the device is busy with what an earlier program has left.
long attach_when_free(const Descriptor& fd, const std::string& name, bool tap, int more_flags, ifreq* request,
                      bool insists) {
  return retry_while_busy(name, -EBUSY, insists, [&] {
    *request = ifreq{};
    name.copy(request->ifr_name, IFNAMSIZ - 1);
    request->ifr_flags =
        static_cast<short>((tap ? IFF_TAP : IFF_TUN) | IFF_NO_PI | IFF_VNET_HDR | more_flags);
    return sys::ioctl(fd.get(), TUNSETIFF, request);
  });
}

/// /dev/net/tun, opened once more for each queue.
long open_driver() { return sys::openat(kTunDevice, O_RDWR | O_NONBLOCK | O_CLOEXEC); }

}  // namespace

std::optional<OpenError> open_tun_device(const std::string& name, bool tap, Link* link, bool* created,
                                         uint32_t queues, bool insists) {
  if (name.empty() || name.size() >= IFNAMSIZ || name == "." || name == ".." ||
      name.find_first_of("/: \t\n") != std::string::npos) {
    return OpenError{EINVAL,
                     "\"" + name + "\" can't be a device's name (1 to 15 characters, no '/', ':' or space)"};
  }
  Descriptor any(static_cast<int>(sys::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  ifreq request{};
  bool existed = query_interface(any.get(), name, SIOCGIFINDEX, &request) == 0;

  long opened = open_driver();
  if (opened < 0) return tun_unavailable(static_cast<int>(-opened));
  Descriptor fd(static_cast<int>(opened));

  int several = queues > 1 ? IFF_MULTI_QUEUE : 0;
  long result = several == 0 ? attach_when_free(fd, name, tap, several, &request, insists) : -EINVAL;
  Link claimed;
  if (result == -EINVAL && (existed || several != 0)) {
    // The kernel gives queues to everybody who asks, and would spread what comes in over all of them. (One
    // will do of a device that was made for several.)
    if (existed)
      if (auto taken = claim(mode_name(tap) + ":" + name, &claimed, insists)) {
        OpenError error =
            attach_error(taken->code == EADDRINUSE ? EBUSY : taken->code, name, tap, existed, queues);
        error.user = taken->user;
        return error;
      }
    several = IFF_MULTI_QUEUE;
    result = attach_when_free(fd, name, tap, several, &request, insists);
  }
  if (result < 0) return attach_error(static_cast<int>(-result), name, tap, existed, queues);
  std::string device = request.ifr_name;

  int header_size = Link::kVirtioHeader;
  if (long r = sys::ioctl(fd.get(), TUNSETVNETHDRSZ, &header_size); r < 0) {
    return OpenError{static_cast<int>(-r),
                     "the kernel's tun driver can't carry virtio-net headers on " + device};
  }
  // What the kernel may leave undone in frames to us. What we may leave undone in ours needs no asking.
  for (long offload : {TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
                       TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6, TUN_F_CSUM, 0}) {
    if (sys::call(SYS_ioctl, fd.get(), TUNSETOFFLOAD, offload) == 0) break;
  }

  LinkInfo info;
  info.kind = tap ? LinkInfo::Kind::ethernet : LinkInfo::Kind::ip;
  info.checksum_offload = info.tcp_segmentation_v4 = info.tcp_segmentation_v6 = true;
  if (query_interface(any.get(), device, SIOCGIFMTU, &request) == 0)
    info.mtu = static_cast<uint16_t>(std::min(request.ifr_mtu, 65535));
  Link made(std::move(fd), info, Link::kVirtioHeader, false, device);
  made.claim() = std::move(claimed.claim());
  if (several != 0 && !made.claim())
    if (auto taken = claim(mode_name(tap) + ":" + device, &made, insists)) return taken;
  while (made.queues() < queues) {
    Descriptor more(static_cast<int>(open_driver()));
    result = more ? attach_when_free(more, device, tap, several, &request, insists) : -EMFILE;
    if (result < 0) {
      return OpenError{static_cast<int>(-result), "can't have " + std::to_string(queues) + " queues of " +
                                                      device + ", only " + std::to_string(made.queues()) +
                                                      ": " + std::strerror(static_cast<int>(-result))};
    }
    made.add_queue(std::move(more));
  }
  if (several != 0 && existed) stop_steering(made);
  *link = std::move(made);
  if (created != nullptr) *created = !existed;
  return std::nullopt;
}

}  // namespace ustack::io
