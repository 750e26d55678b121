#include "io/shared_region.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "io/fork_mark.h"
#include "stack/base/sanitizers.h"

namespace ustack::io {
namespace {

struct Unmap {
  void operator()(SharedRegion* region) const { SharedRegion::unmap(region); }
};
using Region = std::unique_ptr<SharedRegion, Unmap>;

Region reserve(size_t bytes = SharedRegion::kDefaultBytes) {
  SharedRegion* region = nullptr;
  auto problem = SharedRegion::reserve(&region, bytes);
  EXPECT_EQ(problem ? problem->message : "", "");
  return Region(region);
}

/// Runs `body` in a child; true if it returned true there.
template <typename Body>
bool in_child(Body body) {
  pid_t child = fork();
  if (child == 0) _exit(body() ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// How many of the range's pages are in memory.
size_t resident(const void* at, size_t bytes) {
  std::vector<unsigned char> pages(bytes / 4096);
  EXPECT_EQ(mincore(const_cast<void*>(at), bytes, pages.data()), 0);
  size_t count = 0;
  for (unsigned char page : pages) count += page & 1u;
  return count;
}

TEST(SharedRegion, ReservesWithoutTakingMemory) {
  Region region = reserve();
  ASSERT_TRUE(region);
  EXPECT_GE(region->size(), SharedRegion::kSmallestBytes);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(region->base()) % 4096, 0u);
  EXPECT_EQ(resident(region->base(), 1 << 20), 0u);
}

TEST(SharedRegion, CommitMakesPagesUsableAndReleaseGivesThemBack) {
  Region region = reserve();
  std::byte* base = region->base();
  ASSERT_TRUE(region->commit(base, 16 * 4096));
  EXPECT_EQ(resident(base, 16 * 4096), 16u);
  std::memset(base, 0x55, 16 * 4096);
  ASSERT_TRUE(region->commit(base, 16 * 4096));
  EXPECT_EQ(base[4096], std::byte{0x55}) << "committing again keeps what is there";
  region->release(base + 4096, 4 * 4096);
  EXPECT_EQ(resident(base + 4096, 4 * 4096), 0u);
  ASSERT_TRUE(region->commit(base + 4096, 4 * 4096));
  EXPECT_EQ(base[4096], std::byte{0});
  EXPECT_EQ(base[0], std::byte{0x55});
}

TEST(SharedRegion, ChildrenShareItAndUseTheSameObject) {
  Region region = reserve();
  auto* word = static_cast<int*>(region->take_head(sizeof(int)));
  ASSERT_NE(word, nullptr);
  EXPECT_EQ(*word, 0);
  std::byte* base = region->base();
  ASSERT_TRUE(in_child([&] {
    MemorySource& source = *region;  // through the virtual functions, as the arena does
    if (!source.commit(base, 8192)) return false;
    base[8191] = std::byte{7};
    *word = 42;
    return true;
  }));
  EXPECT_EQ(*word, 42);
  EXPECT_EQ(base[8191], std::byte{7});
}

TEST(SharedRegion, AnArenaLivesInIt) {
  Region region = reserve();
  SharedArena* arena = SharedArena::create(region->base(), region->size(), *region);
  ASSERT_NE(arena, nullptr);
  void* mine = arena->allocate(100'000, 16);
  ASSERT_NE(mine, nullptr);
  std::memset(mine, 1, 100'000);
  void* childs = nullptr;
  void** slot = static_cast<void**>(arena->allocate(sizeof(void*), alignof(void*)));
  ASSERT_TRUE(in_child([&] {
    *slot = arena->allocate(200'000, 16);
    if (*slot != nullptr) std::memset(*slot, 2, 200'000);
    return *slot != nullptr;
  }));
  childs = *slot;
  EXPECT_EQ(static_cast<char*>(childs)[199'999], 2);
  EXPECT_EQ(arena->in_use(), 300'000 + sizeof(void*));
}

TEST(SharedRegion, GuardedPagesFaultInThisProcessOnly) {
  Region region = reserve();
  std::byte* base = region->base();
  ASSERT_TRUE(region->commit(base, 8192));
  pid_t child = fork();
  if (child == 0) {
    rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGSEGV, SIG_DFL);
    region->guard(base, 4096);
    *const_cast<volatile std::byte*>(base) = std::byte{1};
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
  base[0] = std::byte{2};
  region->guard(base, 4096);
  region->unguard(base, 4096);
  EXPECT_EQ(base[0], std::byte{2});
}

TEST(SharedRegion, IsLeftOutOfCoreDumps) {
  Region region = reserve();
  std::ifstream maps("/proc/self/smaps");
  std::string line, wanted;
  char address[32];
  std::snprintf(address, sizeof address, "%lx-", reinterpret_cast<unsigned long>(region.get()));
  bool inside = false, dont_dump = false;
  while (std::getline(maps, line)) {
    if (line.find('-') != std::string::npos && line.find(':') > line.find(' '))
      inside = line.starts_with(address);
    if (inside && line.starts_with("VmFlags:")) dont_dump = line.find(" dd") != std::string::npos;
  }
  EXPECT_TRUE(dont_dump);
}

TEST(SharedRegion, TakesWhatALimitedAddressSpaceAllows) {
  if (kAddressSanitizer || kThreadSanitizer) GTEST_SKIP() << "sanitizers need the address space";
  EXPECT_TRUE(in_child([] {
    rlimit limit{size_t{3} << 30, size_t{3} << 30};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return false;
    SharedRegion* region = nullptr;
    auto problem = SharedRegion::reserve(&region);
    return !problem && region->size() < (size_t{3} << 30) &&
           region->size() >= SharedRegion::kSmallestBytes - 8192;
  }));
}

TEST(SharedRegion, SaysWhichLimitIsTooLow) {
  if (kAddressSanitizer || kThreadSanitizer) GTEST_SKIP() << "sanitizers need the address space";
  EXPECT_TRUE(in_child([] {
    rlimit limit{size_t{200} << 20, size_t{200} << 20};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return false;
    SharedRegion* region = nullptr;
    auto problem = SharedRegion::reserve(&region);
    return problem && problem->code == ENOMEM && region == nullptr &&
           problem->message.find("RLIMIT_AS") != std::string::npos;
  }));
}

TEST(ForkMark, TellsAProcessFromItsForks) {
  uint64_t here = fork_generation();
  EXPECT_NE(here, 0u);
  EXPECT_EQ(fork_generation(), here);
  EXPECT_TRUE(in_child([here] {
    uint64_t there = fork_generation();
    return there != here && there == fork_generation() && in_child([here, there] {
             uint64_t grandchild = fork_generation();
             return grandchild != here && grandchild != there;
           });
  }));
  EXPECT_EQ(fork_generation(), here);
}

}  // namespace
}  // namespace ustack::io
