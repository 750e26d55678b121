// The table of USTACK_ variables, and how each is read.
#include <algorithm>
#include <array>
#include <charconv>

#include "io/config.h"
#include "io/config_text.h"

namespace ustack::io {

namespace {

/// nullopt: fine; else what is wrong.
using Problem = std::optional<std::string>;

std::string quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

template <typename T>
std::optional<T> parse_number(std::string_view text, T lowest, T highest) {
  T value{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < lowest || value > highest)
    return std::nullopt;
  return value;
}

/// Calls `each(item)` for the parts of a list, trimmed; empty parts are a mistake.
template <typename Each>
Problem for_each_item(std::string_view list, char separator, bool allow_empty, Each each) {
  for (;;) {
    size_t end = list.find(separator);
    std::string_view item = trim(list.substr(0, end));
    if (!item.empty()) {
      if (Problem problem = each(item)) return problem;
    } else if (!allow_empty) {
      return "an item of the list is empty";
    }
    if (end == std::string_view::npos) return std::nullopt;
    list.remove_prefix(end + 1);
  }
}

bool is_device_name(std::string_view name) {
  return !name.empty() && name.size() <= 15 && name != "." && name != ".." &&
         name.find_first_of("/:% \t\n") == std::string_view::npos;
}

Problem parse_link(std::string_view value, Config& config) {
  size_t colon = value.find(':');
  std::string_view scheme = value.substr(0, colon);
  std::string_view rest = colon == std::string_view::npos ? std::string_view() : value.substr(colon + 1);
  LinkSpec spec;
  if (scheme == "tap" || scheme == "tun" || scheme == "packet") {
    if (!is_device_name(rest))
      return quoted(rest) + " can't be a device's name: 1 to 15 characters without '/', ':', '%' and space";
    spec.scheme = scheme == "tap"   ? LinkSpec::Scheme::tap
                  : scheme == "tun" ? LinkSpec::Scheme::tun
                                    : LinkSpec::Scheme::packet;
    spec.name = rest;
  } else if (scheme == "fd") {
    size_t second = rest.find(':');
    std::vector<int> fds;
    auto add = [&fds](std::string_view item) -> Problem {
      auto fd = parse_number<int>(item, 0, 1 << 30);
      if (!fd) return quoted(item) + " is not a descriptor's number";
      if (fds.size() == Link::kMaxQueues)
        return "more than " + std::to_string(Link::kMaxQueues) + " descriptors";
      fds.push_back(*fd);
      return std::nullopt;
    };
    if (Problem problem = for_each_item(rest.substr(0, second), ',', false, add)) return problem;
    if (second != std::string_view::npos && rest.substr(second + 1) != "ip")
      return quoted(rest.substr(second + 1)) +
             ": only \"ip\" (a message is a bare IP packet) may follow the number";
    spec.scheme = LinkSpec::Scheme::fd;
    spec.fd = fds.front();
    spec.more_fds.assign(fds.begin() + 1, fds.end());
    spec.ip = second != std::string_view::npos;
  } else {
    return "unknown kind of link " + quoted(scheme);
  }
  spec.queues = config.link.queues;
  config.link = std::move(spec);
  return std::nullopt;
}

Problem parse_count(std::string_view value, uint32_t& count) {
  auto number = parse_number<uint32_t>(value, 1, Link::kMaxQueues);
  if (!number) return "not a number from 1 to " + std::to_string(Link::kMaxQueues);
  count = *number;
  return std::nullopt;
}
Problem parse_queues(std::string_view value, Config& config) {
  return parse_count(value, config.link.queues);
}
Problem parse_shards(std::string_view value, Config& config) { return parse_count(value, config.shards); }

/// Nothing but zeros follow the prefix: in IPv6 any router's (RFC 4291, 2.6.1).
bool is_first_of(const Prefix& prefix) {
  for (unsigned bit = prefix.length; bit < 128; ++bit)
    if ((std::to_integer<unsigned>(prefix.address.data()[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
  return true;
}

Problem check_own_address(const Prefix& prefix) {
  const IpAddress& address = prefix.address;
  std::string text = to_string(prefix);
  if (prefix.length == 0) return text + ": a prefix length of 0 would take in every address";
  if (address.is_unspecified() || address.is_multicast() || address.is_limited_broadcast())
    return text + " can't be a host's address";
  if (address.is_loopback()) return text + ": loopback addresses belong to the machine";
  if (address.is_v6()) {
    if (address.is_ipv4_mapped()) return text + " stands for an IPv4 address";
    if (prefix.length <= 126 && is_first_of(prefix)) return text + " is the address of the subnet's routers";
    return std::nullopt;
  }
  if (prefix.length <= 30) {
    uint32_t host_bits = 0xffffffffu >> prefix.length;
    uint32_t host = address.v4_host_order() & host_bits;
    if (host == 0) return text + " is the subnet's own address, not a host's";
    if (host == host_bits) return text + " is the subnet's broadcast address";
  }
  return std::nullopt;
}

Problem parse_addresses(std::string_view value, Config& config) {
  config.addresses.clear();
  return for_each_item(value, ',', false, [&](std::string_view item) -> Problem {
    if (item.find('/') == std::string_view::npos)
      return quoted(item) + " lacks its prefix length, as in 192.0.2.2/24";
    auto prefix = parse_prefix(item);
    if (!prefix) return quoted(item) + " is not an address with a prefix length";
    if (Problem problem = check_own_address(*prefix)) return problem;
    for (const Prefix& other : config.addresses)
      if (other.address == prefix->address) return to_string(prefix->address) + " is there twice";
    constexpr size_t kMost = NetworkConfig::kMaxChosen;
    if (config.addresses.size() == kMost) return "more than " + std::to_string(kMost) + " addresses";
    config.addresses.push_back(*prefix);
    return std::nullopt;
  });
}

Problem parse_gateways(std::string_view value, Config& config) {
  config.gateways.clear();
  return for_each_item(value, ',', false, [&](std::string_view item) -> Problem {
    auto address = parse_address(item);
    if (!address) return quoted(item) + " is not an address";
    if (address->is_unspecified() || address->is_multicast() || address->is_limited_broadcast() ||
        address->is_loopback())
      return to_string(*address) + " can't be a router's address";
    if (config.gateways.size() == NetworkConfig::kMaxGateways)
      return "more than " + std::to_string(NetworkConfig::kMaxGateways) + " gateways";
    config.gateways.push_back(*address);
    return std::nullopt;
  });
}

Problem parse_mac_variable(std::string_view value, Config& config) {
  auto mac = parse_mac(value);
  if (!mac) return "not a MAC address";
  if (mac->is_zero() || mac->is_multicast()) return "not the MAC address of a single interface";
  config.mac = *mac;
  return std::nullopt;
}

Problem parse_mtu(std::string_view value, Config& config) {
  auto mtu = parse_number<uint16_t>(value, 68, 65521);
  if (!mtu) return "not a number of bytes from 68 to 65521";
  config.mtu = *mtu;
  return std::nullopt;
}

Problem parse_loopback(std::string_view value, Config& config) {
  if (value != "kernel" && value != "stack") return "must be \"kernel\" or \"stack\"";
  config.loopback_in_stack = value == "stack";
  return std::nullopt;
}

std::optional<KernelRule> parse_kernel_rule(std::string_view item) {
  KernelRule rule;
  std::string_view prefix, ports;
  bool has_ports = false;
  std::string bracketless;
  if (item.starts_with('[')) {
    size_t close = item.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    std::string_view after = item.substr(close + 1);
    size_t colon = after.find(':');
    bracketless = std::string(item.substr(1, close - 1)) + std::string(after.substr(0, colon));
    prefix = bracketless;
    has_ports = colon != std::string_view::npos;
    if (has_ports) ports = after.substr(colon + 1);
    if (item.substr(1, close - 1).find(':') == std::string_view::npos) return std::nullopt;
  } else if (std::count(item.begin(), item.end(), ':') >= 2) {
    prefix = item;
  } else {
    size_t colon = item.find(':');
    prefix = item.substr(0, colon);
    has_ports = colon != std::string_view::npos;
    if (has_ports) ports = item.substr(colon + 1);
  }
  if (!prefix.empty()) {
    auto parsed = parse_prefix(prefix);
    if (!parsed) return std::nullopt;
    rule.prefix = *parsed;
  }
  if (has_ports) {
    size_t dash = ports.find('-');
    auto first = parse_number<uint16_t>(ports.substr(0, dash), 1, 65535);
    auto last =
        dash == std::string_view::npos ? first : parse_number<uint16_t>(ports.substr(dash + 1), 1, 65535);
    if (!first || !last || *first > *last) return std::nullopt;
    rule.first_port = *first;
    rule.last_port = *last;
  }
  return rule;
}

Problem parse_kernel(std::string_view value, Config& config) {
  config.kernel.clear();
  return for_each_item(value, ',', false, [&](std::string_view item) -> Problem {
    auto rule = parse_kernel_rule(item);
    if (!rule) return quoted(item) + " is no prefix, no :PORT and no PREFIX:PORT";
    config.kernel.push_back(*rule);
    return std::nullopt;
  });
}

Problem parse_sysctl(std::string_view value, Config& config) {
  return for_each_item(value, ';', true,
                       [&](std::string_view item) { return set_sysctl(item, config.settings); });
}

Problem parse_io(std::string_view value, Config& config) {
  if (value == "uring")
    config.io = EngineKind::uring;
  else if (value == "plain")
    config.io = EngineKind::plain;
  else
    return "must be \"uring\" or \"plain\"";
  return std::nullopt;
}

Problem parse_spin(std::string_view value, Config& config) {
  auto microseconds = parse_number<int64_t>(value, 0, 1'000'000);
  if (!microseconds) return "not a number of microseconds from 0 to 1000000";
  config.spin = std::chrono::microseconds(*microseconds);
  return std::nullopt;
}

Problem parse_udp(std::string_view value, Config& config) {
  if (value != "stack" && value != "kernel") return "neither \"stack\" nor \"kernel\"";
  config.udp_in_stack = value == "stack";
  return std::nullopt;
}

Problem parse_syscalls(std::string_view value, Config& config) {
  if (value == "auto")
    config.syscalls = OwnSyscalls::automatic;
  else if (value == "catch")
    config.syscalls = OwnSyscalls::catch_them;
  else if (value == "leave")
    config.syscalls = OwnSyscalls::leave;
  else
    return "neither \"auto\" nor \"catch\" nor \"leave\"";
  return std::nullopt;
}

Problem parse_efault(std::string_view value, Config& config) {
  if (value != "check") return "must be \"check\"";
  config.check_pointers = true;
  return std::nullopt;
}

Problem parse_trust(std::string_view value, Config& config) {
  if (value != "relatives" && value != "credentials") return "must be \"relatives\" or \"credentials\"";
  config.parts_by_credentials = value == "credentials";
  return std::nullopt;
}

Problem parse_log(std::string_view value, Config& config) {
  size_t colon = value.find(':');
  std::string_view level = value.substr(0, colon);
  std::string_view file = colon == std::string_view::npos ? std::string_view() : value.substr(colon + 1);
  if (colon != std::string_view::npos && file.empty()) return "no file's name behind the ':'";
  constexpr std::array kLevels{LogLevel::off,  LogLevel::error, LogLevel::warning,
                               LogLevel::info, LogLevel::debug, LogLevel::trace};
  for (LogLevel candidate : kLevels) {
    if (level != log_level_name(candidate)) continue;
    config.log_level = candidate;
    config.log_file = file;
    return std::nullopt;
  }
  return "unknown level " + quoted(level);
}

Problem parse_capture(std::string_view value, Config& config) {
  config.capture_file = value;
  return std::nullopt;
}

Problem parse_counters(std::string_view value, Config& config) {
  config.counters_file = value;
  return std::nullopt;
}

Problem parse_config(std::string_view value, Config& config) {
  config.config_file = value;
  return std::nullopt;
}

constexpr std::array kVariables{
    ConfigVariable{
        "USTACK_LINK", "tap:NAME | tun:NAME | packet:IFNAME | fd:N[,N...] | fd:N[,N...]:ip",
        "what the host is plugged into; fd is a datagram or seqpacket socket with one frame (or one "
        "bare IP packet) a message, or one for each queue; default: a TAP named by the kernel, ustack0 and "
        "so on",
        parse_link},
    ConfigVariable{
        "USTACK_ADDR", "ADDRESS/LENGTH[,...]",
        "the host's addresses; default: the next free /30 of 198.18.0.0/15, with the kernel's side set up",
        parse_addresses},
    ConfigVariable{"USTACK_GATEWAY", "ADDRESS[,...]",
                   "default routers; default: the kernel's side if USTACK_ADDR is not set, else none",
                   parse_gateways},
    ConfigVariable{"USTACK_MAC", "xx:xx:xx:xx:xx:xx", "the host's MAC address; default: random",
                   parse_mac_variable},
    ConfigVariable{"USTACK_MTU", "BYTES", "largest IP packet, 68 to 65521; default: the device's", parse_mtu},
    ConfigVariable{"USTACK_LOOPBACK", "kernel | stack",
                   "who has 127.0.0.0/8; kernel (default): the machine; stack: the host itself",
                   parse_loopback},
    ConfigVariable{"USTACK_KERNEL", "PREFIX | :PORT[-PORT] | PREFIX:PORT[-PORT] [,...]",
                   "destinations that stay with the kernel, as in 203.0.113.0/24,:53,[2001:db8::]/32:80-443; "
                   "default: none",
                   parse_kernel},
    ConfigVariable{"USTACK_SYSCTL", "NAME=VALUE[;...]", "settings under the names that Linux gives them",
                   parse_sysctl},
    ConfigVariable{
        "USTACK_CONFIG", "FILE",
        "a file of settings in sysctl.conf's syntax and of these variables as NAME=value lines; the "
        "environment wins over it",
        parse_config},
    ConfigVariable{"USTACK_IO", "uring | plain",
                   "how frames are moved; default: the quicker one that is allowed", parse_io},
    ConfigVariable{"USTACK_QUEUES", "1 to 8",
                   "queues of the link (tap, tun, packet), each read and written by a thread or process of "
                   "its own; default: 1",
                   parse_queues},
    ConfigVariable{"USTACK_SHARDS", "1 to 8",
                   "parts of the host, each with a queue of the link, a lock and a share of the connections, "
                   "for programs whose threads or processes each accept their own; default: 1",
                   parse_shards},
    ConfigVariable{"USTACK_SPIN", "MICROSECONDS", "how long to look for frames before sleeping; default: 0",
                   parse_spin},
    ConfigVariable{
        "USTACK_EFAULT", "check",
        "every bad pointer gives EFAULT, at the price of a system call per copy; default: only what can "
        "be told for nothing",
        parse_efault},
    ConfigVariable{
        "USTACK_TRUST", "relatives | credentials",
        "who shares the host's memory after fork; relatives (default): all; credentials: who has not "
        "given up root, the others go through the keeper",
        parse_trust},
    ConfigVariable{"USTACK_UDP", "kernel | stack",
                   "whose UDP sockets are: the kernel's (default), or the host's own", parse_udp},
    ConfigVariable{
        "USTACK_SYSCALLS", "auto | catch | leave",
        "system calls that a program makes without libc: auto (default): caught in programs that Go has "
        "made; catch: in any; leave: they go to the kernel",
        parse_syscalls},
    ConfigVariable{"USTACK_LOG", "off | error | warning | info | debug | trace [:FILE]",
                   "how much is told, and where; default: off, stderr", parse_log},
    ConfigVariable{"USTACK_CAPTURE", "FILE", "a pcapng file of what crosses the link; default: none",
                   parse_capture},
    ConfigVariable{
        "USTACK_COUNTERS", "FILE",
        "at exit the counters are written there, a line each, named as nstat(8) does; default: none",
        parse_counters},
};

}  // namespace

std::span<const ConfigVariable> config_variables() { return kVariables; }

}  // namespace ustack::io
