// What the kernel says of an interface (netdevice(7)).
#pragma once

#include <linux/if.h>
#include <linux/sockios.h>

#include <string_view>

#include "io/syscalls.h"

namespace ustack::io {

/// Asks `request` (SIOCGIFMTU, SIOCGIFHWADDR, ...) about the interface `name`, on any socket or TAP. 0, or a
/// negative errno: -ENODEV if there is none of that name.
inline long query_interface(int fd, std::string_view name, unsigned long request, ifreq* out) {
  *out = ifreq{};
  name.copy(out->ifr_name, IFNAMSIZ - 1);
  return sys::ioctl(fd, request, out);
}

}  // namespace ustack::io
