// getifaddrs(3) and freeifaddrs(3): the machine's interfaces, behind them the host's addresses. An address
// that a program finds there it can bind to, tell others, or take for its own.
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "shim/address.h"
#include "shim/hooks.h"
#include "shim/host_lock.h"
#include "shim/process.h"
#include "shim/scope.h"

namespace ustack::shim {

namespace {

/// An entry of ours, in a block of its own. Its members don't lie where libc's entries have them, so that the
/// two can be told apart by an entry's pointers.
struct Entry {
  ifaddrs entry{};
  uint64_t gap = 0;
  union Name {
    sockaddr_in in;
    sockaddr_in6 in6{};
    sockaddr* pointer() { return reinterpret_cast<sockaddr*>(this); }
  };
  Name address{}, netmask{}, broadcast{};
  std::array<char, IFNAMSIZ> name{};

  static Entry* of(ifaddrs* entry) { return reinterpret_cast<Entry*>(entry); }
  static bool is_ours(ifaddrs* entry) {
    return reinterpret_cast<std::byte*>(entry->ifa_addr) ==
           reinterpret_cast<std::byte*>(entry) + offsetof(Entry, address);
  }
};

/// What the host has, or will have when it is made.
struct Addresses {
  std::array<Prefix, NetworkConfig::kMaxAddresses> prefixes{};
  size_t count = 0;
  std::array<char, IFNAMSIZ> device{};

  void add(std::span<const Prefix> all) {
    for (const Prefix& each : all)
      if (!each.address.is_loopback() && count < prefixes.size()) prefixes[count++] = each;
  }
  void name(std::string_view text) {
    // A device of that name in /sys or none: fd:N has none.
    if (text.empty() || text.find_first_of(":%") != std::string_view::npos) text = "ustack";
    std::memcpy(device.data(), text.data(), std::min(text.size(), device.size() - 1));
  }
};

Addresses own_addresses() {
  Addresses own;
  Scope scope;
  if (Process::has_host()) {
    HostLock lock;
    own.add(lock.host().network().addresses());
    own.name(Process::link().name());
  } else {
    own.add(Process::config().addresses);
    own.name(Process::config().link.name);
  }
  return own;
}

/// Of addresses of `family`: the first `length` bits are set.
IpAddress mask_of(Family family, uint8_t length) {
  std::array<std::byte, 16> bits{};
  for (unsigned bit = 0; bit < length; ++bit) bits[bit / 8] |= std::byte{0x80} >> bit % 8;
  return IpAddress::from_bytes(family, bits.data());
}

void put(const IpAddress& address, Entry::Name& to) {
  sockaddr_storage named;
  const socklen_t size = to_sockaddr({address, 0}, &named);
  std::memcpy(to.pointer(), &named, size);
}

/// nullptr: no memory.
Entry* make(const Prefix& prefix, const std::array<char, IFNAMSIZ>& device, unsigned flags) {
  auto* made = static_cast<Entry*>(std::malloc(sizeof(Entry)));
  if (made == nullptr) return nullptr;
  new (made) Entry;
  made->name = device;
  put(prefix.address, made->address);
  put(mask_of(prefix.address.family(), prefix.length), made->netmask);
  // Of all kinds of prefixes, as the kernel has it.
  if (prefix.address.is_v4()) {
    const uint32_t mask = mask_of(Family::ipv4, prefix.length).v4_host_order();
    put(IpAddress::v4(prefix.address.v4_host_order() | ~mask), made->broadcast);
  }
  made->entry.ifa_name = made->name.data();
  made->entry.ifa_flags = flags;
  made->entry.ifa_addr = made->address.pointer();
  made->entry.ifa_netmask = made->netmask.pointer();
  if ((flags & IFF_BROADCAST) != 0 && prefix.address.is_v4())
    made->entry.ifa_broadaddr = made->broadcast.pointer();
  return made;
}

void free_from(ifaddrs* entry) {
  while (entry != nullptr) std::free(std::exchange(entry, entry->ifa_next));
}

}  // namespace

namespace hook {

int getifaddrs(ifaddrs** list) {
  if (int result = real::getifaddrs(list); result != 0 || Scope::inside()) return result;
  const Addresses own = own_addresses();
  unsigned flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;
  ifaddrs** end = list;
  for (; *end != nullptr; end = &(*end)->ifa_next)
    if (std::strcmp((*end)->ifa_name, own.device.data()) == 0)
      flags = (*end)->ifa_flags | IFF_UP | IFF_RUNNING;  // to whom it looks like the device that it is behind
  ifaddrs** first = end;
  for (size_t i = 0; i < own.count; ++i) {
    Entry* made = make(own.prefixes[i], own.device, flags);
    if (made == nullptr) {
      free_from(std::exchange(*first, nullptr));
      real::freeifaddrs(std::exchange(*list, nullptr));
      errno = ENOMEM;
      return -1;
    }
    *end = &made->entry;
    end = &made->entry.ifa_next;
  }
  return 0;
}

void freeifaddrs(ifaddrs* list) {
  ifaddrs** at = &list;
  while (*at != nullptr && !Entry::is_ours(*at)) at = &(*at)->ifa_next;
  free_from(std::exchange(*at, nullptr));
  real::freeifaddrs(list);
}

}  // namespace hook

}  // namespace ustack::shim
