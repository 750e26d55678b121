// What becomes of the device behind a link while the host runs: up or down, its MTU, its MAC address.
//
// The kernel says by rtnetlink(7) that something has changed, and is asked what by netdevice(7): so a message
// that was lost when many came costs nothing, and the keeper, which is what watches, needs no libnl mapped.
#pragma once

#include <optional>
#include <string_view>

#include "io/descriptor.h"
#include "stack/net/address.h"

namespace ustack::io {

struct DeviceState {
  bool up = false;
  /// Bytes of an IP packet, 68 to 65535.
  uint16_t mtu = 0;
  MacAddress mac{};
};

/// Readable when some interface of this network namespace has changed; O_NONBLOCK. Empty: it can't be had.
Descriptor open_device_watch();
/// Takes what the kernel has said off it.
void clear_device_watch(const Descriptor& watch);
/// How the device is now; nullopt: there is none of that name. Any socket will do to ask with.
std::optional<DeviceState> query_device(int socket, std::string_view name);

}  // namespace ustack::io
