#include "io/config.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "io/config_text.h"
#include "io/descriptor.h"
#include "io/syscalls.h"
#include "stack/net/ipv6.h"

namespace ustack::io {

namespace {

// Beside the code of a program's start (shim/library.ld).
[[gnu::section(".rodata.inert")]] constexpr char kPrefixText[] = "USTACK_";
constexpr std::string_view kPrefix = kPrefixText;
/// More than any sensible file; a device such as /dev/zero must not fill memory.
constexpr size_t kLargestFile = 1 << 20;

const ConfigVariable* find_variable(std::string_view name) {
  for (const ConfigVariable& variable : config_variables())
    if (variable.name == name) return &variable;
  return nullptr;
}

/// Levenshtein's distance of two short names.
size_t distance(std::string_view a, std::string_view b) {
  std::array<size_t, 64> row{};
  if (b.size() >= row.size()) return a.size() + b.size();
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t substituted = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

std::string unknown_variable(std::string_view name) {
  std::string text = std::string(name) + ": there is no such variable; ";
  const ConfigVariable* nearest = nullptr;
  size_t best = 4;
  for (const ConfigVariable& variable : config_variables()) {
    size_t d = distance(name, variable.name);
    if (d < best) {
      best = d;
      nearest = &variable;
    }
  }
  if (nearest != nullptr) return text + "did you mean " + std::string(nearest->name) + "?";
  text += "known are";
  for (const ConfigVariable& variable : config_variables())
    text += (&variable == config_variables().data() ? " " : ", ") + std::string(variable.name);
  return text;
}

/// Collects the lines of what is wrong.
class Complaints {
 public:
  void add(const std::string& line) {
    if (!text_.empty()) text_ += '\n';
    text_ += line;
  }
  std::optional<std::string> take() {
    if (text_.empty()) return std::nullopt;
    return std::move(text_);
  }

 private:
  std::string text_;
};

/// `where`: "" for the environment, "FILE:LINE: " for the file.
void apply(std::string_view name, std::string_view value, const std::string& where, Config& config,
           Complaints& complaints) {
  const ConfigVariable* variable = find_variable(name);
  if (variable == nullptr) return complaints.add(where + unknown_variable(name));
  value = trim(value);
  if (value.empty()) return;
  if (auto problem = variable->parse(value, config)) {
    complaints.add(where + std::string(name) + "=" + std::string(value) + ": " + *problem +
                   "; it takes: " + std::string(variable->form));
  }
}

std::optional<std::string> read_file(const std::string& path, std::string* out) {
  long fd = sys::openat(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return std::strerror(static_cast<int>(-fd));
  Descriptor file(static_cast<int>(fd));
  for (;;) {
    char buffer[4096];
    long got = sys::read(file.get(), buffer, sizeof buffer);
    if (got == -EINTR) continue;
    if (got < 0) return std::strerror(static_cast<int>(-got));
    if (got == 0) return std::nullopt;
    out->append(buffer, static_cast<size_t>(got));
    if (out->size() > kLargestFile) return "it is larger than 1 MB";
  }
}

/// sysctl.conf(5): "#" and ";" start a comment line, "-" before a name asks to ignore its failure.
void apply_file(const std::string& path, Config& config, Complaints& complaints) {
  std::string text;
  if (auto problem = read_file(path, &text)) {
    complaints.add("USTACK_CONFIG=" + path + ": can't read the file: " + *problem);
    return;
  }
  int number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    size_t end = rest.find('\n');
    std::string_view line = trim(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    ++number;
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    std::string where = path + ":" + std::to_string(number) + ": ";
    bool may_fail = line[0] == '-';
    if (may_fail) line = trim(line.substr(1));
    size_t equals = line.find('=');
    if (equals == std::string_view::npos) {
      complaints.add(where + "\"" + std::string(line) + "\" is not of the form NAME = VALUE");
      continue;
    }
    std::string_view name = trim(line.substr(0, equals));
    if (name == "USTACK_CONFIG") {
      complaints.add(where + "USTACK_CONFIG can't be set in the file itself");
    } else if (name.starts_with(kPrefix)) {
      apply(name, line.substr(equals + 1), where, config, complaints);
    } else if (auto problem = set_sysctl(line, config.settings); problem && !may_fail) {
      complaints.add(where + *problem);
    }
  }
}

/// What can only be judged with everything known.
void check_together(Config& config, Complaints& complaints) {
  bool is_ip = config.link.scheme == LinkSpec::Scheme::tun ||
               (config.link.scheme == LinkSpec::Scheme::fd && config.link.ip);
  if (config.link.scheme == LinkSpec::Scheme::fd && config.addresses.empty())
    complaints.add("USTACK_LINK=fd:" + std::to_string(config.link.fd) +
                   ": needs USTACK_ADDR, as there is no kernel's side to set up and take an address from");
  if (config.link.scheme == LinkSpec::Scheme::packet && config.addresses.empty())
    complaints.add("USTACK_LINK=packet:" + config.link.name +
                   ": needs USTACK_ADDR, an address of its own in the interface's network");
  if (config.shards > 1 && config.link.queues > 1 && config.link.queues != config.shards)
    complaints.add("USTACK_QUEUES=" + std::to_string(config.link.queues) +
                   ": each of the USTACK_SHARDS=" + std::to_string(config.shards) + " has one queue");
  config.link.queues = std::max(config.link.queues, config.shards);
  config.link.steered = config.shards > 1;
  if (config.link.scheme == LinkSpec::Scheme::fd && config.link.queues > 1 &&
      config.link.queues != 1 + config.link.more_fds.size())
    complaints.add((config.shards > 1 ? "USTACK_SHARDS=" : "USTACK_QUEUES=") +
                   std::to_string(config.link.queues) +
                   ": a link over sockets has as many queues as sockets are named");
  if (config.udp_in_stack && config.parts_by_credentials)
    complaints.add(
        "USTACK_UDP=stack: doesn't go with USTACK_TRUST=credentials, as the keeper moves no datagrams");
  if (config.has_ipv6() && config.mtu != 0 && config.mtu < Ipv6Header::kLeastMtu)
    complaints.add("USTACK_MTU=" + std::to_string(config.mtu) + ": a link of IPv6 carries at least " +
                   std::to_string(Ipv6Header::kLeastMtu) + " bytes (RFC 8200)");
  if (is_ip && config.mac)
    complaints.add("USTACK_MAC=" + to_string(*config.mac) + ": a link of bare IP has no MAC address");
  for (const IpAddress& gateway : config.gateways) {
    std::string variable = "USTACK_GATEWAY=" + to_string(gateway) + ": ";
    if (config.addresses.empty()) {
      complaints.add(variable + "needs USTACK_ADDR, the host's address in the gateway's subnet");
      return;
    }
    bool own = std::any_of(config.addresses.begin(), config.addresses.end(),
                           [&](const Prefix& prefix) { return prefix.address == gateway; });
    const bool on_link = gateway.is_link_local() && config.has_ipv6();
    bool near = is_ip || on_link ||
                std::any_of(config.addresses.begin(), config.addresses.end(),
                            [&](const Prefix& prefix) { return prefix.contains(gateway); });
    if (own) complaints.add(variable + "is the host's own address");
    if (!near) complaints.add(variable + "lies in no subnet of USTACK_ADDR, so the host can't reach it");
  }
}

}  // namespace

std::optional<std::string> set_sysctl(std::string_view assignment, Settings& settings) {
  size_t equals = assignment.find('=');
  if (equals == std::string_view::npos)
    return "\"" + std::string(assignment) + "\" is not of the form NAME=VALUE";
  std::string name(trim(assignment.substr(0, equals)));
  std::string_view value = trim(assignment.substr(equals + 1));
  // sysctl(8) takes slashes for dots.
  if (name.find('.') == std::string::npos) std::replace(name.begin(), name.end(), '/', '.');
  Status status = settings.set(name, value);
  if (status.ok()) return std::nullopt;
  if (status.code() == ENOENT) return "there is no setting " + name + " in this host";
  return name + " can't be \"" + std::string(value) + "\": not of its form, or out of bounds";
}

bool KernelRule::matches(const SocketAddress& destination) const {
  if (destination.port < first_port || destination.port > last_port) return false;
  if (prefix.address.family() == Family::unspecified) return true;
  return prefix.address.family() == destination.address.family() && prefix.contains(destination.address);
}

bool Config::has_ipv6() const {
  return std::ranges::any_of(addresses, [](const Prefix& own) { return own.address.is_v6(); });
}

bool Config::stays_with_kernel(const SocketAddress& destination) const {
  return std::any_of(kernel.begin(), kernel.end(),
                     [&](const KernelRule& rule) { return rule.matches(destination); });
}

std::array<int32_t, 3> tcp_memory_limits() {
  struct sysinfo machine {};
  if (sysinfo(&machine) != 0) return Settings{}.tcp_mem;
  const uint64_t bytes = uint64_t{machine.totalram} * machine.mem_unit;
  const auto sixteenth = static_cast<int32_t>(std::clamp<uint64_t>(bytes / 4096 / 16, 128, 1 << 29));
  const int32_t first = sixteenth / 4 * 3;
  return {first, sixteenth, 2 * first};
}

namespace {

/// What Config::parse() does where there is something to be parsed.
[[gnu::noinline]] std::optional<std::string> parse_variables(const char* const* environment, Config* out) {
  std::string_view file;
  for (const char* const* entry = environment; *entry != nullptr; ++entry) {
    std::string_view text = *entry;
    if (file.empty() && text.starts_with("USTACK_CONFIG=")) file = trim(text.substr(text.find('=') + 1));
  }
  Complaints complaints;
  if (!file.empty()) apply_file(std::string(file), *out, complaints);
  for (const char* const* entry = environment; *entry != nullptr; ++entry) {
    std::string_view text = *entry;
    if (!text.starts_with(kPrefix)) continue;
    size_t equals = text.find('=');
    std::string_view name = text.substr(0, equals);
    std::string_view value = equals == std::string_view::npos ? std::string_view() : text.substr(equals + 1);
    apply(name, value, "", *out, complaints);
  }
  check_together(*out, complaints);
  return complaints.take();
}

}  // namespace

std::optional<std::string> Config::parse(const char* const* environment, Config* out) {
  *out = Config{};
  // Nearly every program that is started has none, and is not to notice us.
  for (const char* const* entry = environment; entry != nullptr && *entry != nullptr; ++entry)
    if (std::strncmp(*entry, kPrefix.data(), kPrefix.size()) == 0) return parse_variables(environment, out);
  return std::nullopt;
}

namespace {

/// FNV-1a of what is put in.
class Digest {
 public:
  Digest& operator<<(std::string_view text) {
    for (char c : text) add(static_cast<uint8_t>(c));
    add(0);
    return *this;
  }
  Digest& operator<<(int64_t number) {
    for (int shift = 0; shift < 64; shift += 8) add(static_cast<uint8_t>(number >> shift));
    return *this;
  }
  uint64_t value() const { return value_; }

 private:
  void add(uint8_t byte) { value_ = (value_ ^ byte) * 0x100000001b3; }
  uint64_t value_ = 0xcbf29ce484222325;
};

}  // namespace

uint64_t Config::identity() const {
  Digest digest;
  digest << static_cast<int64_t>(link.scheme) << link.name << int64_t{link.fd} << int64_t{link.ip}
         << int64_t{link.queues} << int64_t{shards};
  for (int fd : link.more_fds) digest << int64_t{fd};
  for (const Prefix& address : addresses) digest << "address" << to_string(address);
  for (const IpAddress& gateway : gateways) digest << "gateway" << to_string(gateway);
  digest << (mac ? to_string(*mac) : std::string()) << int64_t{mtu} << int64_t{loopback_in_stack};
  for (const KernelRule& rule : kernel)
    digest << "kernel" << to_string(rule.prefix) << int64_t{rule.first_port} << int64_t{rule.last_port};
#define USTACK_SETTING_IN_DIGEST(field, name, value, lowest, highest) digest << int64_t{settings.field};
  USTACK_INTEGER_SETTINGS(USTACK_SETTING_IN_DIGEST)
#undef USTACK_SETTING_IN_DIGEST
  for (const auto* three : {&settings.tcp_rmem, &settings.tcp_wmem, &settings.tcp_mem})
    for (int32_t number : *three) digest << int64_t{number};
  for (int32_t port : settings.ip_local_port_range) digest << int64_t{port};
  digest << settings.tcp_congestion_control << int64_t{settings.tcp_fastopen_keys};
  for (std::byte byte : settings.tcp_fastopen_key) digest << std::to_integer<int64_t>(byte);
  return digest.value();
}

}  // namespace ustack::io
