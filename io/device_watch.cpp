#include "io/device_watch.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/interface_query.h"
#include "io/syscalls.h"

namespace ustack::io {

Descriptor open_device_watch() {
  Descriptor watch(
      static_cast<int>(sys::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE)));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (watch && sys::failed(sys::call(SYS_bind, watch.get(), sys::arg(&address), sizeof address)))
    watch.reset();
  return watch;
}

void clear_device_watch(const Descriptor& watch) {
  char buffer[8192];
  // ENOBUFS: some were lost, more may follow.
  for (long n = 1; n > 0 || n == -ENOBUFS;)
    n = sys::call(SYS_recvfrom, watch.get(), sys::arg(buffer), sizeof buffer, MSG_DONTWAIT, 0, 0);
}

std::optional<DeviceState> query_device(int socket, std::string_view name) {
  DeviceState state;
  ifreq device;
  if (sys::failed(query_interface(socket, name, SIOCGIFFLAGS, &device))) return std::nullopt;
  state.up = (device.ifr_flags & IFF_UP) != 0;
  if (sys::failed(query_interface(socket, name, SIOCGIFMTU, &device))) return std::nullopt;
  state.mtu = static_cast<uint16_t>(std::clamp(device.ifr_mtu, 68, 65535));
  if (!sys::failed(query_interface(socket, name, SIOCGIFHWADDR, &device)))
    std::memcpy(state.mac.bytes.data(), device.ifr_hwaddr.sa_data, state.mac.bytes.size());
  return state;
}

}  // namespace ustack::io
