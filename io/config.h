// Configuration: the USTACK_ variables and the file that USTACK_CONFIG names.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/engine.h"
#include "io/link.h"
#include "stack/base/log.h"
#include "stack/net/address.h"
#include "stack/net/network.h"
#include "stack/settings.h"

namespace ustack::io {

/// Destinations that stay with the kernel: a prefix, ports, or both. An item of USTACK_KERNEL:
///
///     ITEM   = PREFIX | ":" PORTS | PREFIX ":" PORTS
///     PREFIX = IPv4 ["/" LENGTH] | "[" IPv6 "]" ["/" LENGTH] | IPv6 ["/" LENGTH]   (the last without ports)
///     PORTS  = PORT ["-" PORT]
struct KernelRule {
  /// Of unspecified family: any address of either family.
  Prefix prefix;
  uint16_t first_port = 0, last_port = 65535;

  bool matches(const SocketAddress& destination) const;
};

/// Whose system calls are caught that go round libc: programs' that Go has made, any program's, nobody's.
enum class OwnSyscalls { automatic, catch_them, leave };

/// Everything that a user can choose, with its defaults.
struct Config {
  LinkSpec link;
  std::vector<Prefix> addresses;
  std::vector<IpAddress> gateways;
  std::optional<MacAddress> mac;
  /// 0: the device's.
  uint16_t mtu = 0;
  /// USTACK_LOOPBACK=stack.
  bool loopback_in_stack = false;
  /// USTACK_UDP=stack.
  bool udp_in_stack = false;
  std::vector<KernelRule> kernel;
  Settings settings;
  EngineKind io = EngineKind::automatic;
  Duration spin{0};
  /// USTACK_EFAULT=check.
  bool check_pointers = false;
  /// USTACK_SHARDS: as many queues has the link.
  uint32_t shards = 1;
  /// USTACK_TRUST=credentials: who gives up root leaves the host's memory to the others (shim/parting.h).
  bool parts_by_credentials = false;
  /// USTACK_SYSCALLS: whose system calls are caught that go round libc (shim/catching.h).
  OwnSyscalls syscalls = OwnSyscalls::automatic;
  LogLevel log_level = LogLevel::off;
  /// Empty: stderr.
  std::string log_file;
  /// Empty: none.
  std::string capture_file;
  std::string counters_file;
  /// USTACK_CONFIG, already read.
  std::string config_file;

  /// The host has addresses of IPv6; else IPv6 is the machine's.
  bool has_ipv6() const;
  /// A destination that USTACK_KERNEL leaves to the kernel (loopback is not asked here).
  bool stays_with_kernel(const SocketAddress& destination) const;

  /// The same (but by an accident of 1 in 2^64) for configurations that make the same host: the link, its
  /// addresses and all settings, but not how a process reads and writes, logs and captures.
  uint64_t identity() const;

  /// Reads the variables from an environ-like array (ending in nullptr) and the file that USTACK_CONFIG
  /// names; the environment wins over the file. On an error returns the text for the user, one line for each
  /// thing that is wrong: the variable, its value, and what would be right; `*out` is then not to be used.
  /// Without any USTACK_ variable it costs one pass over the array.
  static std::optional<std::string> parse(const char* const* environment, Config* out);
};

/// One row for each variable: what scripts and the README are checked against.
struct ConfigVariable {
  /// With the prefix: "USTACK_LINK".
  std::string_view name;
  /// The form of its value: "tap:NAME | tun:NAME | ...".
  std::string_view form;
  /// What it chooses, one line, with the default.
  std::string_view help;
  /// Sets it; the text of what is wrong with `value` otherwise (without the variable's name).
  std::optional<std::string> (*parse)(std::string_view value, Config& config);
};
std::span<const ConfigVariable> config_variables();

/// net.ipv4.tcp_mem as Linux has it on this machine: 4.7, 6.2 and 9.4 % of its memory (tcp_init_mem).
std::array<int32_t, 3> tcp_memory_limits();

/// "192.0.2.1" or "2001:db8::1" (inet_pton(3)).
std::optional<IpAddress> parse_address(std::string_view text);
/// "192.0.2.0/24"; without a length the whole address.
std::optional<Prefix> parse_prefix(std::string_view text);
/// "02:00:00:00:00:01".
std::optional<MacAddress> parse_mac(std::string_view text);

std::string to_string(const IpAddress& address);
std::string to_string(const Prefix& prefix);
std::string to_string(const MacAddress& mac);

}  // namespace ustack::io
