// From a configuration to an opened link and the network behind it: what the first socket of a process does.
#pragma once

#include <optional>
#include <string>

#include "io/config.h"
#include "io/link.h"
#include "io/open_error.h"
#include "stack/base/random.h"
#include "stack/net/network.h"

namespace ustack::io {

struct BroughtUp {
  Link link;
  NetworkConfig network;
  /// One line for the log: the device, the host's addresses and gateway, and what was set up on the kernel's
  /// side.
  std::string summary;
};

/// Opens the link and completes what the user has left open:
///
/// - nothing set: a TAP named by the kernel (ustack0, ...); the host gets an address of the pool
/// 198.18.0.0/15
///   (RFC 2544's, for devices on one machine), the kernel's side its neighbour in the same /30, which is also
///   the gateway. The device's number chooses the /30; where it is in use in this namespace, the next free
///   one.
/// - USTACK_LINK but no USTACK_ADDR: the same with the device's index (a link of kind fd needs USTACK_ADDR).
/// - USTACK_ADDR: the kernel's side is left as it is, but for being brought up if the device was made here.
/// - no USTACK_MAC: locally administered; the same again for the same address on the same device. No
/// USTACK_MTU: the device's, 1500 for fd links.
///
/// May take some milliseconds (libnl is loaded where the kernel's side is set up). `insists`: as of
/// open_link().
std::optional<OpenError> bring_up(const Config& config, RandomSource& random, BroughtUp* out,
                                  bool insists = true);

/// The /30 of the pool with this number, as the kernel's side's address; the host's is the next one. `number`
/// is taken modulo the pool's size (32768).
Prefix pool_subnet(uint32_t number);

}  // namespace ustack::io
