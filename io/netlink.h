// The kernel's side of a link, through libnl. libnl is loaded (dlopen) when it is first needed: Debian's
// static archives are not position independent, and a preloaded library must not drag libnl into every
// program.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/open_error.h"
#include "stack/net/address.h"

namespace ustack::io {

/// A NETLINK_ROUTE socket of the calling process, in its network namespace. Needs CAP_NET_ADMIN there for
/// everything that changes something; reading needs no right. Set-up only: allocates, blocks for the kernel's
/// answer.
class Netlink {
 public:
  struct LinkState {
    int index = 0;
    uint32_t mtu = 0;
    bool up = false;
    bool running = false;
    MacAddress mac;
    std::string kind;  ///< "tun" for TAP and TUN devices
  };

  /// Loads libnl and connects. ENOENT: libnl-3 or libnl-route-3 is not installed.
  static std::optional<OpenError> open(std::unique_ptr<Netlink>* out);
  ~Netlink();
  Netlink(const Netlink&) = delete;
  Netlink& operator=(const Netlink&) = delete;

  /// ENODEV: no such device.
  std::optional<OpenError> get_link(const std::string& device, LinkState* state);
  std::optional<OpenError> set_up(const std::string& device, bool up = true);
  std::optional<OpenError> set_mtu(const std::string& device, uint32_t mtu);
  std::optional<OpenError> set_mac(const std::string& device, const MacAddress& mac);
  /// Adds an address to the kernel's side. EEXIST is no error if the device has that very address.
  std::optional<OpenError> add_address(const std::string& device, const Prefix& address);
  /// Adds (or replaces) a route; `gateway` of unspecified family: directly on the device.
  std::optional<OpenError> add_route(const std::string& device, const Prefix& destination,
                                     const IpAddress& gateway);
  /// The device's addresses.
  std::optional<OpenError> get_addresses(const std::string& device, std::vector<Prefix>* out);
  /// True when an address of any device of this namespace lies in `subnet` or has it in its own, or a route
  /// other than the default leads to part of it.
  std::optional<OpenError> is_in_use(const Prefix& subnet, bool* in_use);
  /// Waits until the device is administratively up and has a carrier. ETIMEDOUT.
  std::optional<OpenError> wait_until_up(const std::string& device, int milliseconds);

 private:
  struct Impl;
  explicit Netlink(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ustack::io
