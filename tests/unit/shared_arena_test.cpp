#include "stack/mem/shared_arena.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "tests/support/seeded_random.h"

namespace ustack {
namespace {

constexpr size_t kPage = SharedArena::kPage;

/// A region whose pages fault unless committed, so that the arena's book-keeping is checked by the hardware.
class StrictSource final : public MemorySource {
 public:
  bool commit(void* memory, size_t bytes) override {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % kPage, 0u);
    EXPECT_EQ(bytes % kPage, 0u);
    ++commits;
    if (bytes > left) return false;
    left -= bytes;
    EXPECT_EQ(mprotect(memory, bytes, PROT_READ | PROT_WRITE), 0);
    return true;
  }
  void release(void* memory, size_t bytes) override {
    ++releases;
    left += bytes;
    EXPECT_EQ(mprotect(memory, bytes, PROT_NONE), 0);
  }
  void guard(void* memory, size_t bytes) override { EXPECT_EQ(mprotect(memory, bytes, PROT_NONE), 0); }
  void unguard(void* memory, size_t bytes) override {
    EXPECT_EQ(mprotect(memory, bytes, PROT_READ | PROT_WRITE), 0);
  }
  size_t left = SIZE_MAX / 2;
  int commits = 0, releases = 0;
};

class SharedArenaTest : public testing::Test {
 protected:
  static constexpr size_t kRegion = 64 * 1024 * 1024;
  SharedArenaTest() {
    region = mmap(nullptr, kRegion, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    arena = SharedArena::create(region, kRegion, source);
  }
  ~SharedArenaTest() override { munmap(region, kRegion); }
  StrictSource source;
  void* region = nullptr;
  SharedArena* arena = nullptr;
};

TEST_F(SharedArenaTest, LivesAtTheStartOfItsRegion) {
  ASSERT_NE(arena, nullptr);
  EXPECT_EQ(static_cast<void*>(arena), region);
  EXPECT_EQ(arena->in_use(), 0u);
  EXPECT_TRUE(arena->recycle());
}

TEST_F(SharedArenaTest, TooSmallOrUncommittableRegionIsRefused) {
  EXPECT_EQ(SharedArena::create(region, 100, source), nullptr);
  source.left = 0;
  EXPECT_EQ(SharedArena::create(region, kRegion, source), nullptr);
}

TEST_F(SharedArenaTest, EverySizeIsUsableAlignedAndLastInFirstOut) {
  for (size_t bytes = 1; bytes < 300 * 1024; bytes += 1 + bytes / 7) {
    void* memory = arena->allocate(bytes, 16);
    ASSERT_NE(memory, nullptr) << bytes;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 16, 0u);
    std::memset(memory, 0x5a, bytes);
    arena->release(memory, bytes);
    EXPECT_EQ(arena->allocate(bytes, 16), memory);
    arena->release(memory, bytes);
  }
  EXPECT_EQ(arena->in_use(), 0u);
}

TEST_F(SharedArenaTest, LargeAlignments) {
  for (size_t align = 32; align <= 4096; align *= 2)
    for (size_t bytes = align; bytes <= 32 * 1024; bytes += align) {
      void* memory = arena->allocate(bytes, align);
      ASSERT_NE(memory, nullptr);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(memory) % align, 0u) << bytes << ' ' << align;
    }
}

TEST_F(SharedArenaTest, ReleaseOfNullIsIgnored) {
  arena->release(nullptr, 100);
  EXPECT_EQ(arena->in_use(), 0u);
}

TEST_F(SharedArenaTest, CommitsRarelyAndTracksHighWater) {
  std::vector<void*> objects;
  int before = source.commits;
  for (int i = 0; i < 8192; ++i) objects.push_back(arena->allocate(2048, 8));
  EXPECT_EQ(std::count(objects.begin(), objects.end(), nullptr), 0);
  EXPECT_LT(source.commits - before, 64);
  EXPECT_EQ(arena->in_use(), 8192u * 2048);
  for (void* object : objects) arena->release(object, 2048);
  EXPECT_EQ(arena->in_use(), 0u);
  EXPECT_EQ(arena->high_water(), 8192u * 2048);
  EXPECT_GE(arena->committed_bytes(), 8192u * 2048);
}

TEST_F(SharedArenaTest, ExhaustedRegionGivesNullAndRecovers) {
  EXPECT_EQ(arena->allocate(kRegion + 1, 8), nullptr);
  EXPECT_EQ(arena->allocate(SIZE_MAX / 2, 8), nullptr);
  std::vector<void*> objects;
  while (void* memory = arena->allocate(65536, 8)) objects.push_back(memory);
  EXPECT_GT(objects.size(), 1000u);
  EXPECT_LE(objects.size() * 65536, kRegion);
  arena->release(objects.back(), 65536);
  EXPECT_EQ(arena->allocate(65536, 8), objects.back());
}

TEST_F(SharedArenaTest, RefusedCommitGivesNullAndRecovers) {
  source.left = 3 * 65536;
  std::vector<void*> objects;
  while (void* memory = arena->allocate(4096, 8)) objects.push_back(memory);
  // Nothing of what the machine gave is left unused for the sake of a larger step.
  EXPECT_GE(objects.size(), 44u);
  size_t in_use = arena->in_use();
  EXPECT_EQ(arena->allocate(4096, 8), nullptr);
  EXPECT_EQ(arena->in_use(), in_use);
  source.left = SIZE_MAX / 2;
  EXPECT_NE(arena->allocate(4096, 8), nullptr);
}

TEST_F(SharedArenaTest, FreeLargeBlocksGoBackToTheMachineAndComeBack) {
  constexpr size_t kSize = 69632;
  std::vector<void*> objects;
  for (int i = 0; i < 200; ++i) objects.push_back(arena->allocate(kSize, 8));
  size_t peak = arena->committed_bytes();
  for (void* object : objects) arena->release(object, kSize);
  EXPECT_GT(source.releases, 0);
  EXPECT_LT(arena->committed_bytes(), peak / 2);
  std::set<void*> again;
  for (int i = 0; i < 200; ++i) {
    void* memory = arena->allocate(kSize, 8);
    ASSERT_NE(memory, nullptr);
    std::memset(memory, 1, kSize);
    again.insert(memory);
  }
  EXPECT_EQ(again, std::set<void*>(objects.begin(), objects.end()));
  // A cold block that can't be committed stays free.
  for (void* object : objects) arena->release(object, kSize);
  source.left = 0;
  int got = 0;
  while (arena->allocate(kSize, 8) != nullptr) ++got;
  EXPECT_GT(got, 0);
  EXPECT_LT(got, 200);
  source.left = SIZE_MAX / 2;
  EXPECT_NE(arena->allocate(kSize, 8), nullptr);
}

TEST_F(SharedArenaTest, OfManyThatWentBackHardlyAnyKeepsAPage) {
  constexpr size_t kSize = 16 * 1024, kCount = 3000, kMostHot = 2 * 1024 * 1024;
  const size_t before = arena->committed_bytes();
  for (int round = 0; round < 3; ++round) {
    std::vector<void*> objects;
    for (size_t i = 0; i < kCount; ++i) {
      objects.push_back(arena->allocate(kSize, 8));
      ASSERT_NE(objects.back(), nullptr);
      std::memset(objects.back(), 1, kSize);
    }
    EXPECT_EQ(std::set<void*>(objects.begin(), objects.end()).size(), kCount);
    EXPECT_GE(arena->committed_bytes(), before + kCount * kSize);
    for (void* object : objects) arena->release(object, kSize);
    EXPECT_LE(arena->committed_bytes(), before + kMostHot + kMostHot + 8 * kPage)
        << "free, cut ahead, listed";
  }
}

TEST_F(SharedArenaTest, RandomLifeNeverOverlapsAndAccountsExactly) {
  test::SeededRandom random(6);
  struct Object {
    std::byte* memory;
    size_t bytes;
    std::byte mark;
  };
  std::vector<Object> objects;
  size_t in_use = 0;
  for (int step = 0; step < 20000; ++step) {
    if (objects.size() < 400 && random.chance(0.55)) {
      size_t bytes = 1 + random.below(size_t{1} << (1 + random.below(17)));
      auto* memory = static_cast<std::byte*>(arena->allocate(bytes, 8));
      if (memory == nullptr) continue;
      auto mark = static_cast<std::byte>(random.next());
      std::memset(memory, static_cast<int>(mark), bytes);
      objects.push_back({memory, bytes, mark});
      in_use += bytes;
    } else if (!objects.empty()) {
      size_t i = random.below(objects.size());
      Object object = objects[i];
      for (size_t k = 0; k < object.bytes; ++k) ASSERT_EQ(object.memory[k], object.mark);
      arena->release(object.memory, object.bytes);
      in_use -= object.bytes;
      objects[i] = objects.back();
      objects.pop_back();
    }
    ASSERT_EQ(arena->in_use(), in_use);
  }
}

TEST_F(SharedArenaTest, GuardedPageFaults) {
  void* memory = arena->allocate(8192, 4096);
  arena->guard(memory, 4096);
  static_cast<volatile char*>(memory)[4096] = 1;
  EXPECT_DEATH(static_cast<volatile char*>(memory)[0] = 1, "");
  arena->unguard(memory, 4096);
  static_cast<volatile char*>(memory)[0] = 1;
}

}  // namespace
}  // namespace ustack
