// What stands between the core and a board's tools: AXI4 and AXI4-Lite with all signals under their standard names, a
// reset that is active low, physical addresses. Vectors hold one part a channel; `dlavm core --shell` writes a top that
// joins it with the core and has the ports of each channel apart.
//
// What the core leaves open is tied: ID 0, beats of the full width, INCR, normal non-cacheable bufferable memory,
// unprivileged secure data. A channel has one ID, so that answers come in order; IDs and RLAST are not looked at.
module dlavm_shell #(
    parameter int unsigned CHANNELS = 2,
    parameter int unsigned PORT_BYTES = 16,
    // Where a channel begins on the board's interconnect.
    parameter logic [CHANNELS-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CHANNEL_BASE = '0,
    parameter int unsigned AXI_ID_WIDTH = 1,
    localparam int unsigned ADDRESS_WIDTH = mem_pkg::ADDRESS_WIDTH,
    localparam int unsigned PORT_BITS = 8 * PORT_BYTES
) (
    input  logic                                    aclk,
    input  logic                                    aresetn,  // sampled by the clock, for at least three cycles
    output logic                                    rst_o,    // of the core

    output logic [CHANNELS-1:0][AXI_ID_WIDTH-1:0]   m_axi_awid,
    output logic [CHANNELS-1:0][ADDRESS_WIDTH-1:0]  m_axi_awaddr,
    output logic [CHANNELS-1:0][7:0]                m_axi_awlen,
    output logic [CHANNELS-1:0][2:0]                m_axi_awsize,
    output logic [CHANNELS-1:0][1:0]                m_axi_awburst,
    output logic [CHANNELS-1:0]                     m_axi_awlock,
    output logic [CHANNELS-1:0][3:0]                m_axi_awcache,
    output logic [CHANNELS-1:0][2:0]                m_axi_awprot,
    output logic [CHANNELS-1:0][3:0]                m_axi_awqos,
    output logic [CHANNELS-1:0]                     m_axi_awvalid,
    input  logic [CHANNELS-1:0]                     m_axi_awready,
    output logic [CHANNELS-1:0][PORT_BITS-1:0]      m_axi_wdata,
    output logic [CHANNELS-1:0][PORT_BYTES-1:0]     m_axi_wstrb,
    output logic [CHANNELS-1:0]                     m_axi_wlast,
    output logic [CHANNELS-1:0]                     m_axi_wvalid,
    input  logic [CHANNELS-1:0]                     m_axi_wready,
    input  logic [CHANNELS-1:0][AXI_ID_WIDTH-1:0]   m_axi_bid,
    input  logic [CHANNELS-1:0][1:0]                m_axi_bresp,
    input  logic [CHANNELS-1:0]                     m_axi_bvalid,
    output logic [CHANNELS-1:0]                     m_axi_bready,
    output logic [CHANNELS-1:0][AXI_ID_WIDTH-1:0]   m_axi_arid,
    output logic [CHANNELS-1:0][ADDRESS_WIDTH-1:0]  m_axi_araddr,
    output logic [CHANNELS-1:0][7:0]                m_axi_arlen,
    output logic [CHANNELS-1:0][2:0]                m_axi_arsize,
    output logic [CHANNELS-1:0][1:0]                m_axi_arburst,
    output logic [CHANNELS-1:0]                     m_axi_arlock,
    output logic [CHANNELS-1:0][3:0]                m_axi_arcache,
    output logic [CHANNELS-1:0][2:0]                m_axi_arprot,
    output logic [CHANNELS-1:0][3:0]                m_axi_arqos,
    output logic [CHANNELS-1:0]                     m_axi_arvalid,
    input  logic [CHANNELS-1:0]                     m_axi_arready,
    input  logic [CHANNELS-1:0][AXI_ID_WIDTH-1:0]   m_axi_rid,
    input  logic [CHANNELS-1:0][PORT_BITS-1:0]      m_axi_rdata,
    input  logic [CHANNELS-1:0][1:0]                m_axi_rresp,
    input  logic [CHANNELS-1:0]                     m_axi_rlast,
    input  logic [CHANNELS-1:0]                     m_axi_rvalid,
    output logic [CHANNELS-1:0]                     m_axi_rready,

    input  logic [11:0]                             s_axi_awaddr,
    input  logic [2:0]                              s_axi_awprot,
    input  logic                                    s_axi_awvalid,
    output logic                                    s_axi_awready,
    input  logic [31:0]                             s_axi_wdata,
    input  logic [3:0]                              s_axi_wstrb,
    input  logic                                    s_axi_wvalid,
    output logic                                    s_axi_wready,
    output logic [1:0]                              s_axi_bresp,
    output logic                                    s_axi_bvalid,
    input  logic                                    s_axi_bready,
    input  logic [11:0]                             s_axi_araddr,
    input  logic [2:0]                              s_axi_arprot,
    input  logic                                    s_axi_arvalid,
    output logic                                    s_axi_arready,
    output logic [31:0]                             s_axi_rdata,
    output logic [1:0]                              s_axi_rresp,
    output logic                                    s_axi_rvalid,
    input  logic                                    s_axi_rready,

    // The core: its ports, the other way round.
    input  logic [CHANNELS-1:0]                           m_ar_valid_i,
    input  logic [CHANNELS-1:0][ADDRESS_WIDTH-1:0]        m_ar_addr_i,
    input  logic [CHANNELS-1:0][7:0]                      m_ar_len_i,
    input  logic [CHANNELS-1:0]                           m_r_ready_i,
    input  logic [CHANNELS-1:0]                           m_aw_valid_i,
    input  logic [CHANNELS-1:0][ADDRESS_WIDTH-1:0]        m_aw_addr_i,
    input  logic [CHANNELS-1:0][7:0]                      m_aw_len_i,
    input  logic [CHANNELS-1:0]                           m_w_valid_i,
    input  logic [CHANNELS-1:0][PORT_BITS-1:0]            m_w_data_i,
    input  logic [CHANNELS-1:0][PORT_BYTES-1:0]           m_w_strb_i,
    input  logic [CHANNELS-1:0]                           m_w_last_i,
    input  logic [CHANNELS-1:0]                           m_b_ready_i,
    output logic [CHANNELS-1:0]                           m_ar_ready_o,
    output logic [CHANNELS-1:0]                           m_r_valid_o,
    output logic [CHANNELS-1:0][PORT_BITS-1:0]            m_r_data_o,
    output logic [CHANNELS-1:0][1:0]                      m_r_resp_o,
    output logic [CHANNELS-1:0]                           m_aw_ready_o,
    output logic [CHANNELS-1:0]                           m_w_ready_o,
    output logic [CHANNELS-1:0]                           m_b_valid_o,
    output logic [CHANNELS-1:0][1:0]                      m_b_resp_o,
    output logic                                          s_aw_valid_o,
    output logic [11:0]                                   s_aw_addr_o,
    output logic                                          s_w_valid_o,
    output logic [31:0]                                   s_w_data_o,
    output logic                                          s_b_ready_o,
    output logic                                          s_ar_valid_o,
    output logic [11:0]                                   s_ar_addr_o,
    output logic                                          s_r_ready_o,
    input  logic                                          s_aw_ready_i,
    input  logic                                          s_w_ready_i,
    input  logic                                          s_b_valid_i,
    input  logic                                          s_ar_ready_i,
    input  logic                                          s_r_valid_i,
    input  logic [31:0]                                   s_r_data_i
);

  localparam logic [2:0] SIZE = 3'($clog2(PORT_BYTES));
  localparam logic [1:0] INCR = 2'b01, OKAY = 2'b00;
  localparam logic [3:0] CACHE = 4'b0011;

  assign m_axi_awid    = '0;
  assign m_axi_arid    = '0;
  assign m_axi_awsize  = {CHANNELS{SIZE}};
  assign m_axi_arsize  = {CHANNELS{SIZE}};
  assign m_axi_awburst = {CHANNELS{INCR}};
  assign m_axi_arburst = {CHANNELS{INCR}};
  assign m_axi_awlock  = '0;
  assign m_axi_arlock  = '0;
  assign m_axi_awcache = {CHANNELS{CACHE}};
  assign m_axi_arcache = {CHANNELS{CACHE}};
  assign m_axi_awprot  = '0;
  assign m_axi_arprot  = '0;
  assign m_axi_awqos   = '0;
  assign m_axi_arqos   = '0;
  assign s_axi_bresp   = OKAY;
  assign s_axi_rresp   = OKAY;

  always_comb begin
    for (int c = 0; c < int'(CHANNELS); c++) begin
      m_axi_awaddr[c] = CHANNEL_BASE[c] + m_aw_addr_i[c];
      m_axi_araddr[c] = CHANNEL_BASE[c] + m_ar_addr_i[c];
    end
  end

  assign m_axi_arvalid = m_ar_valid_i;
  assign m_axi_arlen   = m_ar_len_i;
  assign m_axi_rready  = m_r_ready_i;
  assign m_axi_awvalid = m_aw_valid_i;
  assign m_axi_awlen   = m_aw_len_i;
  assign m_axi_wvalid  = m_w_valid_i;
  assign m_axi_wdata   = m_w_data_i;
  assign m_axi_wstrb   = m_w_strb_i;
  assign m_axi_wlast   = m_w_last_i;
  assign m_axi_bready  = m_b_ready_i;
  assign m_ar_ready_o  = m_axi_arready;
  assign m_r_valid_o   = m_axi_rvalid;
  assign m_r_data_o    = m_axi_rdata;
  assign m_r_resp_o    = m_axi_rresp;
  assign m_aw_ready_o  = m_axi_awready;
  assign m_w_ready_o   = m_axi_wready;
  assign m_b_valid_o   = m_axi_bvalid;
  assign m_b_resp_o    = m_axi_bresp;
  assign s_aw_valid_o  = s_axi_awvalid && !rst_o;
  assign s_aw_addr_o   = s_axi_awaddr;
  assign s_w_valid_o   = s_axi_wvalid && !rst_o;
  assign s_w_data_o    = s_axi_wdata;
  assign s_b_ready_o   = s_axi_bready;
  assign s_ar_valid_o  = s_axi_arvalid && !rst_o;
  assign s_ar_addr_o   = s_axi_araddr;
  assign s_r_ready_o   = s_axi_rready;
  assign s_axi_awready = s_aw_ready_i && !rst_o;
  assign s_axi_wready  = s_w_ready_i && !rst_o;
  assign s_axi_bvalid  = s_b_valid_i;
  assign s_axi_arready = s_ar_ready_i && !rst_o;
  assign s_axi_rvalid  = s_r_valid_i;
  assign s_axi_rdata   = s_r_data_i;

  // The core's reset is synchronous: it begins and ends with the clock, two cycles later than the bus's. Until then
  // its registers take nothing (above).
  logic reset_q;
  always_ff @(posedge aclk) begin
    reset_q <= !aresetn;
    rst_o   <= reset_q;
  end

  // A register is written whole: drivers of an AXI4-Lite window write 32 bits.
  logic unused;
  assign unused = ^{m_axi_bid, m_axi_rid, m_axi_rlast, s_axi_awprot, s_axi_arprot, s_axi_wstrb};

endmodule
